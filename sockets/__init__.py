"""Connections of HTTP servers: what a client may take of time and memory before it is served."""
