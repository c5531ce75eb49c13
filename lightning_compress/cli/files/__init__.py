"""Files: commands that read and write model files."""
