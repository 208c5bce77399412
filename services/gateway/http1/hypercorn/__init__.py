"""How our HTTP/1.1 codec is put into Hypercorn, and what Hypercorn's own keeps to."""
