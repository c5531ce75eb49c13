"""Budget: how the bytes of a file are shared out among the layers of a model."""
