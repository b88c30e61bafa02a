"""The demo's dataset: pinned, whole, cached, and really configuration. The first run downloads it (2.3 MB)."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conman import demo_data
from conman.demo_data import FILE_COUNT, LICENSE, DatasetError, dataset_files, fetch_dataset

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conman" / "demo"

FAKE_CLIENT = """
import pathlib, shutil, sys
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
shutil.copytree(sys.argv[1], target / "checkov")
(target / "checkov-3.3.30.dist-info").mkdir()
shutil.copy(target / "checkov" / "LICENSE", target / "checkov-3.3.30.dist-info" / "LICENSE")
"""


@pytest.fixture(scope="module")
def dataset() -> Path:
    return fetch_dataset(CACHE, lambda line: None)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `fetch_dataset` takes for the package client; without an entry, asking for one fails the test."""
    commands: list[list[str]] = []
    monkeypatch.setattr(demo_data, "_package_client", lambda: commands.pop())
    return commands


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key stands twice"
    return dict(pairs)


def test_the_dataset_is_hundreds_of_configuration_files_that_parse_strictly(dataset: Path):
    names = dataset_files(dataset)
    assert len(names) == FILE_COUNT >= 200
    assert {Path(name).suffix for name in names} == {".json", ".yaml"}
    for name in names:
        text = (dataset / name).read_text(encoding="utf-8")
        parsed = json.loads(text, object_pairs_hook=_unique) if name.endswith(".json") else YAML(typ="safe").load(text)
        assert isinstance(parsed, dict) and {"metadata", "definition"} <= set(parsed), name


def test_the_files_come_in_one_order_everywhere(dataset: Path):
    names = dataset_files(dataset)
    assert names == sorted(names, key=str.encode)
    assert all("\\" not in name and not name.startswith("/") for name in names)


def test_the_licence_stands_beside_the_files(dataset: Path):
    assert "Apache License" in (dataset / LICENSE).read_text(encoding="utf-8")


def test_what_is_cached_is_not_downloaded_again(dataset: Path, clients: list[list[str]]):
    said: list[str] = []
    assert fetch_dataset(CACHE, said.append) == dataset
    assert said == ["using the cached checkov 3.3.30"]


@pytest.mark.parametrize("damage", ["a file is gone", "a file is more", "a file is other", "the licence is gone"])
def test_a_damaged_cache_is_replaced(dataset: Path, clients: list[list[str]], tmp_path: Path, damage: str):
    folder = tmp_path / "cache" / dataset.name
    shutil.copytree(dataset, folder)
    first = folder / dataset_files(folder)[0]
    match damage:
        case "a file is gone":
            first.unlink()
        case "a file is more":
            (folder / "more.json").write_text("{}")
        case "a file is other":
            first.write_text("{}")
        case _:
            (folder / LICENSE).unlink()
    clients.append([sys.executable, "-c", FAKE_CLIENT, str(dataset)])
    assert fetch_dataset(tmp_path / "cache", lambda line: None) == folder
    assert dataset_files(folder) == dataset_files(dataset)
    assert clients == []


def test_a_package_with_other_files_is_refused_and_leaves_nothing(dataset: Path, clients: list[list[str]], tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "more.yaml").write_text("a: 1\n")
    clients.append([sys.executable, "-c", FAKE_CLIENT, str(other)])
    with pytest.raises(DatasetError, match="other files than the ones pinned"):
        fetch_dataset(tmp_path / "cache", lambda line: None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_client_that_fails_is_quoted_by_its_last_line(clients: list[list[str]], tmp_path: Path):
    clients.append([sys.executable, "-c", "import sys; sys.exit('first\\nhashes do not match.')"])
    with pytest.raises(DatasetError, match=r"hashes do not match\. Check the network"):
        fetch_dataset(tmp_path, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_does_not_start_is_an_error_with_advice(clients: list[list[str]], tmp_path: Path):
    clients.append([str(tmp_path / "no-such-program")])
    with pytest.raises(DatasetError, match="Try again when the network is there"):
        fetch_dataset(tmp_path, lambda line: None)


def test_the_client_is_this_pythons_pip_else_uv_else_another_pip_else_an_error(monkeypatch: pytest.MonkeyPatch):
    there = {"uv": "/bin/uv", "pip": "/bin/pip"}
    has_pip = True
    monkeypatch.setattr(demo_data.importlib.util, "find_spec", lambda name: object() if has_pip else None)
    monkeypatch.setattr(demo_data.shutil, "which", there.get)
    monkeypatch.setenv("UV", "/opt/uv")
    assert demo_data._package_client()[:3] == [sys.executable, "-m", "pip"]
    has_pip = False
    assert demo_data._package_client()[0] == "/opt/uv"
    monkeypatch.delenv("UV")
    assert demo_data._package_client()[0] == "/bin/uv"
    del there["uv"]
    assert demo_data._package_client()[0] == "/bin/pip"
    del there["pip"]
    with pytest.raises(DatasetError, match="install uv"):
        demo_data._package_client()
