"""A build as one signed file, and the agent that makes an engine of it on a device."""
