"""Templates to one HTML file whose policy lets the browser load nothing and run nothing."""

from __future__ import annotations

import base64
import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATES = Path(__file__).with_name("html")
# The largest first.
UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
# What a damaged file of a build raises in what reads it or in a template.
DAMAGED = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError)


def rendered(template: str, **known: Any) -> str:
    """The template with its style inlined; all that is ``known`` is text that others wrote, and is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        # A figure that a template asks for in vain is an error, not an empty cell.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": points,
        "percent": percent,
        "decibels": decibels,
        "size": size,
        "capitalise": capitalise,
    }

    # The browser applies the one style whose hash the policy has, and nothing that came in with the data.
    style = (TEMPLATES / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(style=style, policy=policy, **known)


@contextmanager
def refusing(*directories: Path) -> Iterator[None]:
    """Whatever a file that others wrote does to what reads it is a BadRequest that names the directory."""
    from jinja2 import TemplateError

    try:
        yield
    except (*DAMAGED, TemplateError) as error:
        names = " or ".join(str(directory) for directory in directories)
        raise BadRequest(f"what {names} keeps of its build is not whole ({error!r}); build again") from error


def points(value: float) -> str:
    """A share in percent, or a difference of shares in points: 0.0123 is 1.23."""
    # A minus sign, not a hyphen.
    return f"{100 * value:.2f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in percent, as exact as it is small."""
    if value == 0:
        return "0"
    # Below 0.05 % two places would show one digit or none.
    if value < 0.0005:
        return f"{100 * value:.2g}"
    return f"{100 * value:.2f}"


def decibels(value: float | None) -> str:
    """Decibels; None is no difference at all."""
    return "same" if value is None else f"{value:.1f}".replace("-", "−")


def capitalise(sentence: str) -> str:
    """With a capital at its start, and all names in it as they are."""
    return sentence[:1].upper() + sentence[1:]


def size(value: float) -> str:
    """Bytes, for a person."""
    for unit, least in UNITS.items():
        if value >= least:
            return f"{value / least:.3g} {unit}"
    return f"{value:g} bytes"
