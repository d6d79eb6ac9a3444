"""What the service does: one function an act, one transaction each, in the order data travels.

Takes storage and ports as arguments; knows no HTTP, no torch and no settings.
"""
