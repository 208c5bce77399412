"""One module per tool-call format, behind one protocol. Pure."""
