"""The verbs of the command line: one module each with ``HELP``, ``add_flags`` and ``run``."""

COMMANDS = (
    "train",
    "build",
    "inspect",
    "convert",
    "check",
    "report",
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
