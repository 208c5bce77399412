"""Which requests go to other servers: by their model, or because nothing here can serve it."""
