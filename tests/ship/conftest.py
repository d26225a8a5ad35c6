"""One bundle and one agent for all tests of shipping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shipping import Shipped

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


@pytest.fixture(scope="session")
def shipped(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    made = Shipped(tmp_path_factory.mktemp("shipped"), cli.environment)
    for flags in (
        ("keygen", made.key),
        ("create", built, "--key", made.key, "-o", made.file, "--goldens", 24, "--released", 1_790_000_000),
        ("agent", "--key", made.public, "-o", made.agent),
    ):
        done = made.pipeline(*flags)
        assert done.returncode == 0, done.stderr
    return made
