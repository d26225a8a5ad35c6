"""What ends the agent: one sentence and an exit code, the same as those of the pipeline."""

from __future__ import annotations


class AgentError(Exception):
    """A failure with a sentence; shown without a traceback."""

    exit_code = 3


class Failed(AgentError):
    """The engine is not the network that was judged, or the service is not well with it."""

    exit_code = 1


class Refused(AgentError):
    """What was asked for cannot be done as asked; nothing was changed."""

    exit_code = 2


class Broken(AgentError):
    """A step could not be done; nothing half-done is left in use."""

    exit_code = 3
