"""Every failure a user can meet, each with its exit code. The message says what was asked, found and what to do."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the process answers to the shell."""

    PASS = 0
    FAIL = 1
    BAD_REQUEST = 2
    STAGE_FAILED = 3
    UNDECIDED = 4
    INTERRUPTED = 130


EXITS = {"pass": Exit.PASS, "fail": Exit.FAIL, "undecided": Exit.UNDECIDED}


class PipelineError(Exception):
    """A failure that the user can understand and mend; shown without a traceback."""

    exit_code = Exit.STAGE_FAILED


class BadRequest(PipelineError):
    """What was asked for cannot be done as asked."""

    exit_code = Exit.BAD_REQUEST


class StageFailed(PipelineError):
    """A stage could not make its file."""


# The extra that brings each package a user may lack.
EXTRAS = {
    "torch": "build",
    "onnxsim": "build",
    "sklearn": "build",
    "onnxruntime": "cpu",
    "tensorrt": "gpu",
    "tensorrt_rtx": "rtx",
    "huggingface_hub": "hub",
    "matplotlib": "chart",
    "msgpack": "flax",
    "shtab": "shell",
    "tensorstore": "flax",
    "asyncssh": "ship",
    "cryptography": "ship",
    "pytest": "test",
}


def missing(error: ModuleNotFoundError) -> BadRequest:
    """The sentence for a package that is not installed."""
    module = (error.name or "").split(".")[0]
    return BadRequest(f"the Python package {module} is needed and not installed; run: {cure(module)}")


def cure(module: str) -> str:
    """The command that installs ``module``: by our own name where we are installed, else from the source tree."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        # Pip takes the extras of what is installed, and asks no index for another package of that name.
        version(ours := "edge-resnet")
    except PackageNotFoundError:
        ours = "."
    extra = f"[{EXTRAS[module]}]" if module in EXTRAS else ""
    return f"pip install '{ours}{extra}'"
