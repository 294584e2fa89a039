"""Reference answers of the exercises, one module per chapter."""
