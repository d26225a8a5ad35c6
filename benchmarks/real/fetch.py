"""The packages that weights and photographs come from: fetched by name, unpacked, and nothing in them run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Photographs in wheels and in a package of Debian, which has them only where apt does.
WHEELS_WITH_PHOTOGRAPHS = ("foolbox==3.3.4", "scikit-image==0.26.0", "scikit-learn==1.9.1")
DEBIAN_PHOTOGRAPHS = "plasma-workspace-wallpapers"


def wheel(requirement: str, fetched: Path) -> Path:
    """The folder below ``fetched`` that holds what is in the wheel; raises CalledProcessError where pip has none."""
    folder = fetched / requirement
    if folder.exists():
        return folder
    with _unfinished(fetched) as work:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "-d", work, requirement], check=True, stdout=sys.stderr)
        (archive,) = Path(work).glob("*.whl")
        unpacked = Path(work, "unpacked")
        with zipfile.ZipFile(archive) as held:
            held.extractall(unpacked)
        unpacked.rename(folder)
    return folder


def photographs(fetched: Path) -> list[Path]:
    """The folders that hold photographs; says so where Debian's are left out."""
    folders = [wheel(requirement, fetched) for requirement in WHEELS_WITH_PHOTOGRAPHS]
    folder = _debian(fetched)
    if folder is None:
        print(f"without {DEBIAN_PHOTOGRAPHS}, which only apt has: fewer photographs", file=sys.stderr)
        return folders
    return [*folders, folder]


def _debian(fetched: Path) -> Path | None:
    """What Debian's package holds, below a folder of its file's name; None where apt is not here or has it not."""
    known = sorted(fetched.glob(f"{DEBIAN_PHOTOGRAPHS}_*"))
    if known:
        return known[-1]
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    with _unfinished(fetched) as work:
        asked = subprocess.run(["apt-get", "download", DEBIAN_PHOTOGRAPHS], cwd=work, check=False, stdout=sys.stderr)
        if asked.returncode:
            return None
        (archive,) = Path(work).glob("*.deb")
        unpacked = Path(work, "unpacked")
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
        return unpacked.rename(fetched / archive.stem)


def _unfinished(fetched: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside what is finished, so that a finished folder is whole or absent."""
    fetched.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".unfinished-", dir=fetched)
