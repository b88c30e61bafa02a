"""What people may send of a runtime profile, and how it is merged in (`spec.md` 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_samples import DATABASE, EDITS, FULL, MIGRATIONS, URI, merged, text
from pydantic import ValidationError

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.profile import DataStrategy, Lifecycle, Profile
from conman.domain.profile_edit import (
    MAX_SECRET_BYTES,
    MAX_SECRETS,
    NewProfile,
    ProfileEdit,
    check_sound,
    merge,
    refuse_masks,
)
from conman.domain.secrets import mask
from conman.domain.typed_value import MAX_NAME_CHARACTERS, MAX_VALUE_BYTES, MAX_VARIABLES, MAX_VARIABLES_BYTES

# -- The schema


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", " qa"),
        ("name", "a\nb"),
        ("name", "a\0"),
        ("name", "x" * 101),
        ("name", None),
        ("name", 1),
        ("kind", "persistent"),
        ("kind", None),
        ("base_url", ""),
        ("base_url", "example.com"),
        ("base_url", "ftp://example.com"),
        ("base_url", "javascript:alert(1)"),
        ("base_url", "http://"),
        ("base_url", "https://user:pw@example.com"),
        ("base_url", "https://user@example.com"),
        ("base_url", "https://exa mple.com"),
        ("base_url", "https://example.com/\n"),
        ("base_url", "https:\\\\example.com"),
        ("base_url", "https://example.com:99999"),
        ("base_url", "https://example.com/" + "x" * 2048),
        ("base_url", {"$gt": ""}),
        ("env_vars", None),
        ("env_vars", []),
        ("env_vars", {"A": "a"}),
        ("env_vars", {"A": {"value": "a"}}),
        ("env_vars", {"A": {"type": "string"}}),
        ("env_vars", {"A": {"type": "secret", "value": "a"}}),
        ("env_vars", {"A": {"type": "string", "value": "a", "more": 1}}),
        ("env_vars", {"A": {"type": "string", "value": 1}}),
        ("env_vars", {"A": {"type": "string", "value": "a\0b"}}),
        ("env_vars", {"A": {"type": "number", "value": "1"}}),
        ("env_vars", {"A": {"type": "number", "value": True}}),
        ("env_vars", {"A": {"type": "number", "value": float("inf")}}),
        ("env_vars", {"A": {"type": "number", "value": 2**63}}),
        ("env_vars", {"A": {"type": "boolean", "value": 1}}),
        ("env_vars", {"A": {"type": "json", "value": [float("nan")]}}),
        ("env_vars", {"A": {"type": "json", "value": {"$ref": "a", "$id": "b"}}}),
        ("env_vars", {"A": text("x" * (MAX_VALUE_BYTES + 1))}),
        ("env_vars", {"A": text("ä" * (MAX_VALUE_BYTES // 2 + 1))}),
        ("secrets", None),
        ("secrets", {"A": ""}),
        ("secrets", {"A": "a\0b"}),
        ("secrets", {"A": 1}),
        ("secrets", {"A": {"value": "a"}}),
        ("secrets", {"A": "x" * (MAX_SECRET_BYTES + 1)}),
        ("database", {}),
        ("database", {**DATABASE, "engine": "postgresql"}),
        ("database", {**DATABASE, "provisioning_mode": "copy"}),
        ("database", {**DATABASE, "connection_ref": None}),
        ("database", {**DATABASE, "password": "x"}),
        ("database", {**DATABASE, "base_profile_id": ""}),
        ("migrations", {"repo_paths": "migrations", "command_ref": "migrate"}),
        ("migrations", {**MIGRATIONS, "repo_paths": ["../x"]}),
        ("migrations", {**MIGRATIONS, "repo_paths": ["/etc"]}),
        ("migrations", {**MIGRATIONS, "repo_paths": [".git/hooks"]}),
        ("migrations", {**MIGRATIONS, "repo_paths": [""]}),
        ("migrations", {**MIGRATIONS, "repo_paths": ["a"] * 101}),
        ("migrations", {**MIGRATIONS, "command_ref": ""}),
        ("migrations", {**MIGRATIONS, "command": "rm -rf /"}),
        ("data_strategy", {"seed_mode": "full"}),
        ("data_strategy", {"seed_mode": None}),
        ("data_strategy", {"seed_mode": "none", "seed_source_ref": "a\nb"}),
        ("lifecycle", {"ttl_idle_hours": 0}),
        ("lifecycle", {"ttl_idle_hours": 8761}),
        ("lifecycle", {"ttl_idle_hours": True}),
        ("lifecycle", {"grace_hours": -1}),
        ("lifecycle", {"grace_hours": 1.5}),
        ("lifecycle", {"auto_cleanup": 1}),
        ("revision_number", 7),
        ("app_id", "x"),
    ],
)
def test_what_is_no_field_or_no_value_of_it_is_refused(field: str, value: Any) -> None:
    """`spec.md` 6: strict, no other fields."""
    with pytest.raises(ValidationError):
        ProfileEdit.model_validate({field: value})


@pytest.mark.parametrize("field", ["env_vars", "secrets"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        "9A",
        "A-B",
        "A.B",
        "A B",
        "A=B",
        "$A",
        "A\n",
        "Ä",
        "A" * (MAX_NAME_CHARACTERS + 1),
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "DYLD_INSERT_LIBRARIES",
        "BASH_ENV",
        "PYTHONPATH",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "CONMAN_SECRET",
        "MSUITE_REPORT",
    ],
)
def test_a_name_that_no_shell_holds_or_by_which_programs_run_others_is_refused(field: str, name: str) -> None:
    """`spec.md` 6: no member of an app can make a worker run another program."""
    value = text("a") if field == "env_vars" else "a value"
    with pytest.raises(ValidationError, match=field):
        ProfileEdit.model_validate({field: {name: value}})


@pytest.mark.parametrize("name", ["A", "_", "a9", "PYTHONUNBUFFERED", "GIT_COMMIT", "ENV", "PATHS", "MY_PATH", "LANG", "A" * 128])
def test_other_names_are_taken(name: str) -> None:
    assert ProfileEdit.model_validate({"env_vars": {name: text("a")}}).env_vars.keys() == {name}


@pytest.mark.parametrize(
    "url",
    ["http://a", "https://example.com", "HTTPS://Example.com:8443/a?b=c#d", "http://[::1]:8080/", "https://bücher.example/ä"],
)
def test_a_web_address_is_kept_as_it_was_given(url: str) -> None:
    assert merged(Profile(name="x"), base_url=url).base_url == url


def test_a_new_profile_needs_a_name_and_has_the_defaults_of_the_specification() -> None:
    with pytest.raises(ValidationError, match="name"):
        NewProfile.model_validate({})
    new = NewProfile.model_validate({"name": "qa"})
    assert merge(Profile(name=new.name), new, {}) == Profile(
        name="qa", kind="persistent_env", data_strategy=DataStrategy(seed_mode="none"), lifecycle=Lifecycle(auto_cleanup=True)
    )


def test_no_error_and_no_repr_says_the_value_of_a_secret() -> None:
    """`spec.md` 6: plaintext never reaches an error message."""
    plain = "plain-\0-text"
    with pytest.raises(ValidationError) as told:
        ProfileEdit.model_validate({"secrets": {"A": plain, "9": "other-plain"}, "nonsense": 1})
    shown = [str(told.value), repr(told.value), *(item["msg"] for item in told.value.errors())]
    assert not [line for line in shown if "plain" in line]
    assert "open-sesame" not in repr(ProfileEdit.model_validate({"secrets": {"A": URI}}))


# -- Merging


def test_variables_and_secrets_merge_by_key_and_null_deletes_one() -> None:
    """`spec.md` 6."""
    found = merged(
        FULL,
        env_vars={"N": {"type": "boolean", "value": True}, "A": None, "NEW": text("n"), "NONE": None},
        secrets={"TOKEN": None, "OTHER": "another value", "NOBODY": None},
    )
    assert {key: value.model_dump() for key, value in found.env_vars.items()} == {
        "N": {"type": "boolean", "value": True},
        "NEW": text("n"),
    }
    assert {key: ref.mask for key, ref in found.secrets.items()} == {"MONGO_URI": mask(URI), "OTHER": "anot****alue"}
    assert found.secrets["MONGO_URI"] == FULL.secrets["MONGO_URI"]


def test_a_nested_object_is_replaced_as_a_whole() -> None:
    found = merged(FULL, lifecycle={"grace_hours": 2}, data_strategy={"seed_mode": "snapshot"})
    assert found.lifecycle == Lifecycle(grace_hours=2)
    assert found.data_strategy == DataStrategy(seed_mode="snapshot")


def test_null_clears_a_field() -> None:
    found = merged(FULL, base_url=None, database=None, migrations=None, data_strategy=None, lifecycle=None)
    assert found == FULL.model_copy(
        update={"base_url": None, "database": None, "migrations": None, "data_strategy": DataStrategy(), "lifecycle": Lifecycle()}
    )


@pytest.mark.parametrize(
    "field", ["name", "kind", "base_url", "env_vars", "database", "migrations", "data_strategy", "lifecycle"]
)
def test_what_is_not_sent_stays(field: str) -> None:
    sent = {"name": "x", "kind": "temp_workspace", "base_url": "http://x", "env_vars": {"X": text("x")}}
    cleared = {"database": None, "migrations": None, "data_strategy": None, "lifecycle": None}
    found = merged(FULL, **{field: {**sent, **cleared}[field]})
    before, after = FULL.model_dump(), found.model_dump()
    assert [name for name in before if before[name] != after[name]] == [field]


def test_a_key_is_a_variable_or_a_secret() -> None:
    for fields in (
        {"env_vars": {"TOKEN": text("a")}},
        {"secrets": {"A": "a value"}},
        {"secrets": {"X": "x"}, "env_vars": {"X": text("")}},
    ):
        with pytest.raises(DomainError) as told:
            merged(FULL, **fields)
        assert (told.value.code, told.value.details[0]["message"][:35]) == (
            ErrorCode.VALIDATION_ERROR,
            "is a variable and a secret at once:",
        )
    assert "A" in merged(FULL, env_vars={"A": None}, secrets={"A": "a value"}).secrets


def test_a_connection_names_one_of_the_secrets() -> None:
    """`spec.md` 6."""
    for fields in ({"secrets": {"MONGO_URI": None}}, {"database": {**DATABASE, "connection_ref": "A"}}):
        with pytest.raises(DomainError) as told:
            merged(FULL, **fields)
        assert told.value.details == [{"field": "database.connection_ref", "message": "names none of the profile's secrets"}]
    moved = merged(FULL, secrets={"MONGO_URI": None, "DB": "x"}, database={**DATABASE, "connection_ref": "DB"})
    assert moved.database is not None
    assert moved.database.connection_ref == "DB"


@pytest.mark.parametrize("over", [0, 1])
def test_there_is_a_most_of_variables_secrets_and_bytes(over: int) -> None:
    many = {f"V{number}": text("") for number in range(MAX_VARIABLES + over)}
    size = MAX_VARIABLES_BYTES // 4 - len("V0")
    large = {f"V{number}": text("x" * (size + over)) for number in range(4)}
    secrets = {f"S{number}": "x" for number in range(MAX_SECRETS + over)}
    for fields in ({"env_vars": many}, {"env_vars": large}, {"secrets": secrets}):
        if over:
            with pytest.raises(DomainError):
                merged(Profile(name="x"), **fields)
        else:
            merged(Profile(name="x"), **fields)


def test_a_mask_is_never_written_back() -> None:
    """`spec.md` 6: a secret's value equal to its present mask is refused, since somebody wrote back what they read."""
    edit = ProfileEdit.model_validate({"secrets": {"TOKEN": "0123****6789"}})
    with pytest.raises(DomainError) as told:
        refuse_masks(FULL, edit)
    assert told.value.details[0]["field"] == "secrets.TOKEN"
    refuse_masks(FULL, ProfileEdit.model_validate({"secrets": {"TOKEN": "0123***6789", "NEW": "****", "MONGO_URI": None}}))


# -- Properties


@settings(deadline=None)
@given(st.lists(EDITS, max_size=4), EDITS)
def test_an_edit_sets_just_what_it_names_and_a_second_run_changes_nothing(
    past: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    profile = Profile(name="start")
    for earlier in past:
        profile = merged(profile, **earlier)
    found = merged(profile, **fields)
    assert merged(found, **fields) == found
    check_sound(found)
    assert Profile.model_validate(json.loads(found.model_dump_json())) == found
    named = fields.get("env_vars", {})
    assert found.env_vars.keys() == (profile.env_vars.keys() - named.keys()) | {key for key, value in named.items() if value}
    for key, value in found.env_vars.items():
        assert value.model_dump() == (named[key] if key in named else profile.env_vars[key].model_dump())
    for key, ref in found.secrets.items():
        given_value = fields.get("secrets", {}).get(key)
        assert ref.mask == (mask(given_value) if given_value is not None else profile.secrets[key].mask)
