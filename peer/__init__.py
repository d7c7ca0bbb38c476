"""What runs on every machine: daemon, local API, command line."""
