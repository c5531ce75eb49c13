"""The data flow of a model: one traced forward pass, and the places where quantizers belong."""
