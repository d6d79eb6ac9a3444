"""The embedded engine, a process of its own: one base in memory, many adapters, one batch.

Knows no tenant, no model's name and no database: token ids and adapters' digests come in, text
and counts go out. Every torch call is made on one thread, since a second pool of compute threads
costs half the speed.
"""
