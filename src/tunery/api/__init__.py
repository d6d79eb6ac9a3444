"""The edge: HTTP in, HTTP out. The only place that knows FastAPI. Never imports torch."""
