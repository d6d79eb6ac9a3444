"""The tasks of the quality benchmark: each a generator of questions from a seed, and a judge."""
