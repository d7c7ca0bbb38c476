"""What programs on this machine talk to instead of the servers they mean: the registry gateway."""
