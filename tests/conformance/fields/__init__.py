"""What the server does with every field of every request: tables, held against a live server.

`probe` says what an entry is, `table` collects the endpoints. docs/reference/conformance.md is
written from here by scripts/conformance_page.py.
"""
