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
UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}


def rendered(template: str, **known: Any) -> str:
    """The template with its style inlined; all that is ``known`` is text that others wrote, and is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"points": points, "percent": percent, "decibels": decibels, "size": size}
    style = (TEMPLATES / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return made.get_template(template).render(style=style, policy=policy, **known)


@contextmanager
def refusing(*directories: Path) -> Iterator[None]:
    """Whatever a file that others wrote does to what reads it is a BadRequest that names the directory."""
    from jinja2 import TemplateError

    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, TemplateError) as error:
        named = " or ".join(map(str, directories))
        raise BadRequest(f"what {named} keeps of its build is not whole ({error!r}); build again") from error


def points(value: float) -> str:
    """A share in percent, or a difference of shares in points: 0.0123 is 1.23."""
    return f"{100 * value:.2f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in percent, as exact as it is small."""
    return "0" if value == 0 else f"{100 * value:.2f}" if value >= 0.0005 else f"{100 * value:.2g}"


def decibels(value: float | None) -> str:
    """Decibels; None is no difference at all."""
    return "same" if value is None else f"{value:.1f}"


def size(value: float) -> str:
    """Bytes, for a person."""
    unit = next((name for name, least in UNITS.items() if value >= least), None)
    return f"{value:g} bytes" if unit is None else f"{value / UNITS[unit]:.3g} {unit}"
