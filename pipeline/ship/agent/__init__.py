"""What runs on a device: Python 3.8 or newer and numpy, and nothing else of this project."""

AGENT_VERSION = 1
