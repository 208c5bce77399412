"""A fleet whose processes are killed, stopped and cut off while clients ask, and what these see."""
