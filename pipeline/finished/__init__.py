"""A finished build: judged again, held against another, looked into, timed."""
