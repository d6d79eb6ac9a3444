"""What proves conformance from outside: other clients, generated requests, every field."""
