"""The formats: every file here defines one writer, and is found because it lies here."""
