"""Text in Markdown."""

from __future__ import annotations

# What means something in Markdown or HTML.
MARKUP = frozenset("<>&|*_`[]\\")


def plain(text: str) -> str:
    """``text`` on one line, without a meaning in Markdown or HTML."""
    line = " ".join(text.split())
    return "".join(f"&#{ord(character)};" if character in MARKUP else character for character in line)
