"""The LAN: who else is there, and which of them decide for which content."""
