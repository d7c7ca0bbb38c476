"""Sources and seeders: reading origins through scheme plugins."""
