"""A function of the user's own, found by module:function and imported from where the program is started."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable


def find(path: str, sentence: str, wanted: str) -> Callable[..., Any]:
    """The function that ``path`` names; raises BadRequest, which begins with ``sentence``, where there is none.

    ``wanted`` says what it has to do.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise BadRequest(f"{sentence} is not module:function; {wanted}")

    try:
        # Standard output belongs to the result, whatever the module prints while it is imported.
        with contextlib.redirect_stdout(sys.stderr):
            function = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        # Either the module itself, or a package that it is in, is not there; or one that it imports.
        itself_is_missing = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        if not itself_is_missing:
            raise BadRequest(f"{sentence}: {module} could not be imported ({error}); install what it needs") from error
        raise BadRequest(
            f"{sentence}: there is no module {module} here; run from its folder or put that on PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # code of others may do anything, and also end the program
        raise BadRequest(f"{sentence}: {module} could not be imported ({said(error)})") from error

    if function is None:
        raise BadRequest(f"{sentence}: {module} has no {name}; {wanted}")
    if not callable(function):
        raise BadRequest(f"{sentence}: {module} has no callable {name}; {wanted}")
    return function  # type: ignore[no-any-return]


def said(error: BaseException) -> str:
    """An error of foreign code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
