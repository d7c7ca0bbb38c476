"""The dragonet command."""
