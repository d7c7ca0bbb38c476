"""What `dragonet plugin init` writes: working plugins, each with its test."""
