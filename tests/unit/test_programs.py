"""The operator's commands, which members of an app choose by name only (`spec.md` 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from conman.config import Settings, SettingsError, load_settings
from conman.configuration import effective_rows
from conman.settings.programs import ProgramKind

COMMANDS = """
[integration]
kind = "msuite"
argv = ["/opt/suite/run", "--all", "two words"]
description = "the slow one"

[migrate]
kind = "migration"
argv = ["migrate-mongo", "up"]

[k8s]
kind = "target"
argv = ["/opt/deploy"]

[ping]
kind = "health"
argv = ["curl", "-fsS", "http://127.0.0.1/health"]
"""


def _settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "commands.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(commands_file=file)


def test_a_command_is_found_by_its_name_and_kind_only(tmp_path: Path) -> None:
    settings = _settings(tmp_path, COMMANDS)
    found = settings.program(ProgramKind.MSUITE, "integration")
    assert found is not None
    assert found.argv == ("/opt/suite/run", "--all", "two words")
    assert settings.program(ProgramKind.MSUITE, "migrate") is None
    assert settings.program(ProgramKind.MSUITE, "/opt/suite/run") is None
    assert settings.program(ProgramKind.MSUITE, "Integration") is None
    assert {kind.value: settings.program_names(kind) for kind in ProgramKind} == {
        "msuite": ["msuite", "integration"],
        "migration": ["migrate"],
        "target": ["directory", "k8s"],
        "health": ["ping"],
    }


def test_the_built_in_suite_is_the_command_of_its_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_MSUITE_COMMAND", "make test")
    found = load_settings().program(ProgramKind.MSUITE, "msuite")
    assert found is not None
    assert found.argv == ("make", "test")


def test_without_a_file_only_what_is_built_in_is_known() -> None:
    settings = load_settings()
    assert [settings.program_names(kind) for kind in ProgramKind] == [["msuite"], [], ["directory"], []]


def test_the_file_is_read_once_so_that_a_process_never_changes_its_mind(tmp_path: Path) -> None:
    settings = _settings(tmp_path, COMMANDS)
    (tmp_path / "commands.toml").write_text("", encoding="utf-8")
    assert settings.program_names(ProgramKind.HEALTH) == ["ping"]


def test_the_effective_configuration_shows_the_file(tmp_path: Path) -> None:
    rows = {row.variable: row.value for row in effective_rows(_settings(tmp_path, COMMANDS), set())}
    assert rows["CONMAN_COMMANDS_FILE"] == str(tmp_path / "commands.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x", "is not TOML"),
        ("x = 1", "'x' must be a table"),
        ('[x]\nkind = "msuite"', "x.argv"),
        ('[x]\nargv = ["a"]', "x.kind"),
        ('[x]\nkind = "shell"\nargv = ["a"]', "x.kind"),
        ('[x]\nkind = "msuite"\nargv = []', "x.argv"),
        ('[x]\nkind = "msuite"\nargv = "rm -rf /"', "x.argv"),
        ('[x]\nkind = "msuite"\nargv = [" ", "a"]', "must begin with a program"),
        ('[x]\nkind = "msuite"\nargv = ["a", "\\u0000"]', "x.argv"),
        ('[x]\nkind = "msuite"\nargv = ["a"]\nshell = true', "x.shell"),
        ('[X]\nkind = "msuite"\nargv = ["a"]', "'X' is no name"),
        ('["../x"]\nkind = "msuite"\nargv = ["a"]', "is no name"),
        ('[msuite]\nkind = "msuite"\nargv = ["a"]', "'msuite' is built in"),
        ('[directory]\nkind = "target"\nargv = ["a"]', "'directory' is built in"),
    ],
)
def test_a_bad_file_stops_the_start_in_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _settings(tmp_path, text)
    line = str(refused.value)
    assert line.startswith("CONMAN_COMMANDS_FILE: ")
    assert said in line
    assert "\n" not in line


def test_what_is_no_text_or_no_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, said in ((tmp_path / "binary", "is not UTF-8"), (tmp_path, "can't be read"), (tmp_path / "no", "can't be read")):
        with pytest.raises(SettingsError, match=said):
            load_settings(commands_file=path)
