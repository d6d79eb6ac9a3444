"""Data made ready for tuning: read in any common form, looked at, mended, split and written.

The way of a file: `sources` (bytes to items) → `shapes` (items to lines) → `survey` (what is wrong
with them, what will be learned) → `writing` (files that the upload check accepts) → `report`.
"""
