"""Resource clients, one per URL scheme."""
