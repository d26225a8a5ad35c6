"""The verbs of the command line: one module each with ``HELP``, ``add_flags`` and ``run``."""

COMMANDS = (
    "build",
    "inspect",
    "check",
    "certify",
    "debug",
    "bisect",
    "sensitivity",
    "lint",
    "describe",
    "bench",
    "conform",
    "bundle",
    "ship",
    "status",
    "doctor",
    "completion",
)
