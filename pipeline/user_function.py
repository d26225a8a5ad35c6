"""A function of the user's own, found by module:function and imported from where the program is started."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable


def find(asked: str, sentence: str, wanted: str) -> Callable[..., Any]:
    """The function that ``asked`` names; raises BadRequest, which begins with ``sentence``, where there is none.

    ``wanted`` says what it has to do.
    """
    module, _, name = asked.partition(":")
    if not module or not name:
        raise BadRequest(f"{sentence} is not module:function; {wanted}")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            function = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise BadRequest(f"{sentence}: {module} could not be imported ({error}); install what it needs") from error
        raise BadRequest(
            f"{sentence}: there is no module {module} here; run from its folder or put that on PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise BadRequest(f"{sentence}: {module} could not be imported ({said(error)})") from error
    if not callable(function):
        found = "no" if function is None else "no callable"
        raise BadRequest(f"{sentence}: {module} has {found} {name}; {wanted}")
    return function  # type: ignore[no-any-return]


def said(error: BaseException) -> str:
    """An error of foreign code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
