"""HTTP/1.1: server, client seam, frames."""
