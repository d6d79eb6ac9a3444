"""Training data, as pure functions: lines, checks, tokens and masks, batches. Knows no storage."""
