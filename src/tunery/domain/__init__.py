"""Frozen records, states and errors of the service. Standard library only; knows no wire, no SQL."""
