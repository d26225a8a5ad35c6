"""Training, for whoever brings no weights."""
