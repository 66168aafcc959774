"""Recipe files: typed, strict, every error at once."""
