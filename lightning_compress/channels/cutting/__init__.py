"""Removing channels: parameters, optimizer state and layers made smaller, and the record of their shapes."""
