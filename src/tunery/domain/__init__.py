"""Records, states and errors of the service. Standard library only; knows no wire and no SQL."""
