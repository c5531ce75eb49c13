"""The forms in which a tensor is stored: dense, palette (or sparse), grid."""
