"""The production-like stack: valid, pinned, health-checked, without secrets (`architecture.md`, `durability.md` 7)."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from conman.config import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "temporal" / "docker-compose.yml"
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(:\?[^}]+)?\}")
WITH_VALUE = re.compile(r"(?im)^[a-z_]+=\S")


def _load(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


STACK = _load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]


def _awaited_to_end() -> set[str]:
    return {
        name
        for service in SERVICES.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }


def test_the_stack_is_valid_by_the_official_compose_schema():
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text("utf-8"))
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert [error.message for error in validator(schema).iter_errors(STACK)] == []


def test_the_stack_has_what_a_production_has():
    assert set(SERVICES) == {
        *("api", "worker", "codec-server", "temporal", "temporal-ui", "postgres", "mongo", "mongo-init", "mail"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_a_version(name: str):
    image = SERVICES[name]["image"]
    tag = image.rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?", tag), image


def test_every_base_image_and_tool_of_the_dockerfile_is_pinned():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"(?m)^FROM (\S+)", text)
    assert bases and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert re.findall(r"pip install (?:--\S+ )*(\S+)", text) == ["uv==0.13.9"]
    assert text.count("uv sync --frozen") == text.count("uv sync")


def test_the_image_does_not_run_as_root():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"(?m)^USER (\S+)", text)
    assert users == ["conman"]
    assert text.index("USER conman") < text.index("ENTRYPOINT")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_that_stays_has_a_health_check_and_one_that_ends_is_awaited(name: str):
    if name in _awaited_to_end():
        assert SERVICES[name]["restart"] == "on-failure"
    else:
        check = SERVICES[name]["healthcheck"]
        assert check["test"][0] == "CMD" and {"interval", "timeout", "retries"} <= set(check)
        assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_its_needs_to_be_healthy_not_only_started(name: str):
    for need, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if need in _awaited_to_end() else "service_healthy"
        assert how["condition"] == expected, need


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str):
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|PWD|SECRET|KEY|TOKEN", key):
            assert VARIABLE.fullmatch(value), key
        for credentials in re.findall(r"://[^/@\s]+:([^@/\s]*)@", VARIABLE.sub("VARIABLE", value)):
            assert credentials == "VARIABLE", key


def test_every_variable_is_required_and_says_what_it_is():
    text = COMPOSE.read_text(encoding="utf-8")
    found = VARIABLE.findall(text)
    assert found and all(message for _, message in found)


def test_the_example_environment_names_every_variable_and_no_value():
    example = (ROOT / "temporal" / ".env.example").read_text(encoding="utf-8")
    names = set(re.findall(r"(?m)^([A-Z_]+)=", example))
    assert names == {name for name, _ in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))}
    assert WITH_VALUE.findall(example) == []


def test_ports_are_open_to_this_machine_only():
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_drain_of_a_worker_ends_before_its_kill():
    assert SERVICES["worker"]["stop_grace_period"] == "30s"
    assert Settings.model_fields["worker_drain_seconds"].default < 30


def test_temporal_gets_the_measured_limits():
    values = _load(ROOT / "temporal" / "dynamicconfig" / "conman.yaml")
    assert {key: [entry["value"] for entry in entries] for key, entries in values.items()} == {
        "history.maxInFlightUpdates": [500],
        "history.maxTotalUpdates": [20000],
        "history.transferProcessorMaxPollRPS": [2000],
        "history.timerProcessorMaxPollRPS": [2000],
        "history.visibilityProcessorMaxPollRPS": [2000],
        "system.enableActivityEagerExecution": [True],
    }
    temporal = SERVICES["temporal"]
    assert temporal["environment"]["DYNAMIC_CONFIG_FILE_PATH"] == "config/dynamicconfig/conman.yaml"
    assert "./dynamicconfig:/etc/temporal/config/dynamicconfig:ro" in temporal["volumes"]


def test_conman_is_told_settings_that_it_has():
    known = {f"CONMAN_{name.upper()}" for name in Settings.model_fields}
    told = {key for name in ("api", "worker") for key in SERVICES[name]["environment"]}
    assert told <= known
