"""The seams: what the services need of the outside, as Protocols with the records they speak."""
