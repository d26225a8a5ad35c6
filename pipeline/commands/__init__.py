"""The verbs of the command line: one module each with ``HELP``, ``add_flags`` and ``run``."""

COMMANDS = ("build", "check", "certify", "debug", "bisect", "sensitivity", "lint", "conform", "doctor")
