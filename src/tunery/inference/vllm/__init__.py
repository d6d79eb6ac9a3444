"""The client of a vLLM server: an Engine over its HTTP API, with adapters loaded as it runs."""
