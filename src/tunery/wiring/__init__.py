"""Settings to implementations, one module a process. Configuration stops here."""
