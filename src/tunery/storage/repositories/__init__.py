"""Rows to records and back, a module a noun."""
