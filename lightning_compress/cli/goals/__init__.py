"""Goals: commented configs to start from."""
