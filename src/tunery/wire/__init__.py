"""Records to wire and wire to records, a module a noun, and nothing else."""
