"""Requests to addresses that tenants or the operator gave. Knows no tenant.

Those that tenants gave are checked and pinned; all are bounded.
"""
