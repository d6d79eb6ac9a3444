"""Background work: claimed from the queue, run under a lease. Knows no HTTP of ours."""
