"""The catalog: names that a config may use, read from the source without importing PyTorch."""
