"""The wishes of a budget: what it asks of the file, and of the model's speed."""
