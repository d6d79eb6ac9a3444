"""SQL and bytes, and nothing above them knows either. Knows no wire, no HTTP, no training."""
