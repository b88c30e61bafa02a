"""An export that was cut short goes on behind its last whole line (`conman.services.audit_export`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from conman.cli import cli
from conman.domain.ids import derived_uuid7
from conman.services.audit_export import query_of, resume

IDS = [derived_uuid7(1_769_851_800_000, str(number), order=number) for number in range(3)]
LINES = [f'{{"id":"{one}","after":{{"text":"{"x" * 100_000}"}}}}\n'.encode() for one in IDS]


@pytest.mark.parametrize("cut", [0, 1, 50, 70_000, len(LINES[2]) - 1])
def test_a_line_that_was_cut_short_is_taken_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(LINES[0] + LINES[1] + LINES[2][:cut])
    assert resume(path) == IDS[1]
    assert path.read_bytes() == LINES[0] + LINES[1]


@pytest.mark.parametrize("content", [b"", b"{", LINES[0][:80_000]])
def test_a_file_without_a_whole_line_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    assert resume(path) is None
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "content", [b"not json", b"{}", b"not json\n{", b"[]\n", b"{}\n", b'{"id": "no uuid"}\n', b'{"id": 1}\n']
)
def test_a_file_that_is_no_export_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no export"):
        resume(path)
    assert path.read_bytes() == content


def test_both_ends_of_a_span_of_time_are_in() -> None:
    at = "2026-01-31T09:30:00.000Z"
    query = query_of(
        app_id="a", everything=False, earliest=at, latest=at, after=None, equal={"action": "held", "entity_id": None}
    )
    assert (query["app_id"], query["action"], "entity_id" in query) == ("a", "held", False)
    assert query["_id"]["$gte"] <= IDS[0] < query["_id"]["$lt"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "verify", "--app", "a", "--platform"],
        ["audit", "export", "--app", "a", "--platform"],
        ["audit", "export", "--resume"],
        ["prove"],
        ["prove", "r1", "--repository", "."],
        ["prove", "r1", "--check", "file"],
        ["prove", "--check", "no such file"],
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_missing(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert "conman:" in done.stderr
