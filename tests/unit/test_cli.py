"""The command line: help, exit codes, one clear line for what is wrong (`spec.md` 15)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conman import __version__
from conman.cli import cli

COMMANDS = ["up", "api", "worker", "demo", "msuite", "config", "doctor", "reconcile"]
COMMANDS += [
    "git-server",
    "codec-server",
    "codec-keys",
    "admin",
    "admin create",
    "secrets",
    "secrets verify",
    "secrets rotate-master",
    "audit",
    *(f"audit {command}" for command in ("verify", "export", "backfill", "role")),
    "prove",
    "mails",
    *(f"mails {command}" for command in ("list", "show", "retry")),
    "webhooks",
    *(f"webhooks {command}" for command in ("list", "show", "retry", "ping")),
]
runner = CliRunner()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CONMAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str) -> None:
    shown = runner.invoke(cli, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output
    assert len(shown.output.splitlines()) > 6


def test_every_command_is_in_the_list_of_this_test() -> None:
    names = {command.name or (command.callback.__name__ if command.callback else "") for command in cli.registered_commands}
    groups = {group.name for group in cli.registered_groups}
    assert names | groups == {command.split()[0] for command in COMMANDS}


def test_the_version_is_shown() -> None:
    assert runner.invoke(cli, ["--version"]).output.strip() == __version__


def test_an_unknown_command_is_a_usage_error() -> None:
    assert runner.invoke(cli, ["fly"]).exit_code == 2


@pytest.mark.parametrize(
    "command",
    [["config"], ["doctor"], ["worker"], ["api"], ["up"], ["reconcile"], ["git-server"], ["codec-server"], ["secrets", "verify"]],
)
def test_a_bad_setting_stops_every_command_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("CONMAN_GIT_THREADS", "none")
    refused = runner.invoke(cli, command)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "CONMAN_GIT_THREADS" in refused.stderr


@pytest.mark.parametrize("command", [["worker"], ["api"], ["reconcile"]])
def test_without_servers_a_process_says_which_addresses_are_missing(command: list[str]) -> None:
    refused = subprocess.run([sys.executable, "-m", "conman", *command], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "CONMAN_MONGO_URI" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_worker_refuses_a_queue_that_it_does_not_know() -> None:
    refused = runner.invoke(cli, ["worker", "--queues", "conman,lorries"])
    assert refused.exit_code == 2
    assert "lorries" in refused.stderr
    assert "conman-msuite" in refused.stderr


def test_config_shows_every_setting_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_SECRET", "s" * 40)
    rows = json.loads(runner.invoke(cli, ["config", "--json"]).output)
    by_name = {row["variable"]: row for row in rows}
    assert by_name["CONMAN_SECRET"] == {"variable": "CONMAN_SECRET", "value": "****", "source": "environment"}
    assert by_name["CONMAN_PORT"]["source"] == "default"


def test_config_never_prints_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_SECRET", "never to be seen, whatever happens")
    assert "never to be seen" not in runner.invoke(cli, ["config"]).output


def test_doctor_names_what_is_missing_and_fails() -> None:
    found = runner.invoke(cli, ["doctor", "--json"])
    assert found.exit_code == 1
    findings = {row["component"]: row for row in json.loads(found.output)}
    assert not findings["servers"]["ok"]
    assert not findings["secret"]["ok"]
    assert findings["data"]["ok"]


def test_doctor_names_a_suite_that_is_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_MSUITE_COMMAND", "no-such-suite --fast")
    findings = {row["component"]: row for row in json.loads(runner.invoke(cli, ["doctor", "--json"]).output)}
    assert not findings["msuite"]["ok"]
    assert "no-such-suite" in findings["msuite"]["message"]


def test_doctor_names_commands_whose_programs_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "commands.toml"
    file.write_text(
        '[slow]\nkind = "msuite"\nargv = ["no-such-suite"]\n[ok]\nkind = "health"\nargv = ["true"]\n', encoding="utf-8"
    )
    monkeypatch.setenv("CONMAN_COMMANDS_FILE", str(file))
    findings = {row["component"]: row for row in json.loads(runner.invoke(cli, ["doctor", "--json"]).output)}
    assert not findings["commands"]["ok"]
    assert findings["commands"]["message"].startswith("slow (msuite): ")


@pytest.mark.parametrize(("text", "code"), [('{"a": 1}', 0), ('{"a": 1', 1)])
def test_msuite_ends_with_0_for_good_files_and_1_for_findings(tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "one.json").write_text(text, encoding="utf-8")
    assert runner.invoke(cli, ["msuite", str(tmp_path)]).exit_code == code


def test_msuite_ends_with_2_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert runner.invoke(cli, ["msuite", str(tmp_path / "nowhere")]).exit_code == 2


def test_the_root_script_runs_workers(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "worker.py"
    shown = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0
    assert "--queues" in shown.stdout
