"""Is it still the same network? Answers of any file, their drift, and the verdict."""
