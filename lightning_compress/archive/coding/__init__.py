"""How the archive writes tensors: forms of a tensor, entropy-coded streams of symbols, headers and numbers."""
