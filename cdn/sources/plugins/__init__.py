"""Plugins that teach dragonet a scheme: found, loaded, and kept from doing harm."""
