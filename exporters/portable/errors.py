"""What foreign native code ends with, as one kind of error."""

from __future__ import annotations


class NativeError(RuntimeError):
    """A driver or a runtime refused or failed; the text is the whole sentence for a person."""
