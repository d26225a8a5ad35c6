"""Networks as data, checkpoints, and the frozen reference."""
