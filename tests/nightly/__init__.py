"""The whole of what CI runs a short form of: run by `make nightly`."""
