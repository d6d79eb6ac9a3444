"""Requests to addresses that tenants gave: checked, pinned, bounded. Knows no tenant."""
