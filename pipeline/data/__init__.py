"""Images, labels, and the one contract of how pixels reach the network."""
