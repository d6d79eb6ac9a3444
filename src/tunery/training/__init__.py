"""Training: data in, adapter out. Knows blobs as a port, and neither jobs' rows nor the wire."""
