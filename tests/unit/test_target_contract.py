"""What a target program prints is taken only when it is what the contract says (`spec.md` 12, docs/targets.md)."""

from __future__ import annotations

import json

import pytest

from conman.domain.target import MOST_PATHS, Health
from conman.targets.base import TargetError
from conman.targets.contract import read_deploy, read_health, read_observe

DIGEST = "a" * 64
SHA = "0" * 40
SECRET = "the-token-of-the-environment"

HOSTILE = {
    "nothing": (b"", "is empty"),
    "white space": (b" \n", "is empty"),
    "a log line": (b"deployed!\n", "is no JSON"),
    "two answers": (b"{}\n{}", "is no JSON"),
    "half an answer": (b'{"message": "dep', "is no JSON"),
    "other bytes": (b'{"message": "\xff"}', "is not UTF-8"),
    "half a character": (b'{"message": "\\ud800"}', "message"),
    "a list": (b"[]", "is no object"),
    "null": (b"null", "is no object"),
    "NaN": (b'{"folder": NaN}', "NaN is no JSON number"),
    "Infinity": (b'{"folder": -Infinity}', "-Infinity is no JSON number"),
    "a number over all": (b'{"folder": 1e999}', "1e999 is no JSON number"),
    "digits without end": (b'{"folder": ' + b"9" * 5000 + b"}", "is no JSON"),
    "a key twice": (b'{"message": "a", "message": "b"}', "a key stands twice"),
    "a key twice within": (b'{"message": {"a": 1, "a": 2}}', "a key stands twice"),
    "a nest": (b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is no JSON"),
    "a nest in braces": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "is no JSON"),
    "another type": (b'{"message": 7}', "message: Input should be a valid string"),
    "a field too many": (json.dumps({SECRET: SECRET}).encode(), "a field that the contract does not know"),
    "a long message": (json.dumps({"message": "x" * 2001}).encode(), "message: String should have at most 2000"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_answer_that_is_not_of_the_contract_is_refused_and_not_repeated(case: str) -> None:
    answer, problem = HOSTILE[case]
    with pytest.raises(TargetError, match="answer to deploy breaks the contract") as refused:
        read_deploy(answer)
    assert problem in refused.value.message
    assert SECRET not in refused.value.message
    assert not refused.value.again


def test_an_empty_object_is_enough_of_an_answer_to_deploy() -> None:
    assert read_deploy(b"{}").folder is None
    assert read_deploy(b'{"folder": "/srv/shop", "message": "3 pods"}').folder == "/srv/shop"


def test_health_is_a_boolean_and_nothing_that_looks_like_one() -> None:
    assert read_health(b'{"healthy": false, "message": "503"}') == Health(healthy=False, message="503")
    for answer in (b"{}", b'{"healthy": 1}', b'{"healthy": "true"}', b'{"healthy": null}'):
        with pytest.raises(TargetError, match="healthy"):
            read_health(answer)


def test_what_an_answer_leaves_out_is_not_observed() -> None:
    seen = read_observe(b"{}")
    assert (seen.env_vars, seen.secrets, seen.database, seen.migrations, seen.files) == (None, None, None, None, None)
    assert not seen.observes_base_url
    assert read_observe(b'{"base_url": null}').observes_base_url


def test_what_an_answer_says_is_in_the_words_of_a_profile() -> None:
    answer = {
        "env_vars": {"MODE": "a"},
        "secrets": {"TOKEN": DIGEST},
        "base_url": "https://qa.example.com",
        "database": {"engine": "mongodb", "base_profile_id": None},
        "migrations": ["m/1.sql"],
        "commit_sha": SHA,
        "changed_paths": [f"{number}.json" for number in range(MOST_PATHS + 1)],
    }
    seen = read_observe(json.dumps(answer).encode())
    assert (seen.env_vars, seen.secrets, seen.files) == ({"MODE": "a"}, {"TOKEN": DIGEST}, SHA)
    assert (seen.base_url, seen.migrations) == ("https://qa.example.com", ["m/1.sql"])
    assert len(seen.changed_paths) == MOST_PATHS


@pytest.mark.parametrize(
    "answer",
    [
        {"secrets": {"TOKEN": SECRET}},
        {"secrets": {"TOKEN": DIGEST.upper()}},
        {"secrets": [DIGEST]},
        {"env_vars": {"MODE": 1}},
        {"env_vars": {"MODE": None}},
        {"env_vars": {"": "a"}},
        {"database": {"engine": {"nested": 1}}},
        {"migrations": "m/1.sql"},
        {"commit_sha": "main"},
        {"changed_paths": [""]},
    ],
    ids=lambda answer: json.dumps(answer)[:40],
)
def test_an_observation_of_another_shape_is_refused_without_its_content(answer: object) -> None:
    with pytest.raises(TargetError, match="answer to observe breaks the contract") as refused:
        read_observe(json.dumps(answer).encode())
    assert SECRET not in refused.value.message
