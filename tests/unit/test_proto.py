"""The generated Python of Gitaly's protocol is what `make proto` makes of the `.proto` file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conman.git import proto

FOLDER = Path(proto.__file__).parent
ROOT = FOLDER.parents[2]
SOURCE = "conman/git/proto/gitaly.proto"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("proto")
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, SOURCE], cwd=ROOT, check=True)
    return target / "conman/git/proto"


@pytest.mark.parametrize("name", ["gitaly_pb2.py", "gitaly_pb2.pyi", "gitaly_pb2_grpc.py"])
def test_a_generated_file_is_what_the_protocol_file_makes(regenerated: Path, name: str) -> None:
    assert (regenerated / name).read_bytes() == (FOLDER / name).read_bytes(), "run make proto"


def test_nothing_else_is_generated_or_left_over(regenerated: Path) -> None:
    committed = {path.name for path in FOLDER.iterdir() if path.name.startswith("gitaly_pb2")}
    assert {path.name for path in regenerated.iterdir()} == committed, "run make proto"
