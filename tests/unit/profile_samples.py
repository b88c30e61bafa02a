"""A runtime profile with everything in it, and edits of profiles as people send them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from conman.domain.profile import Profile
from conman.domain.profile_edit import ProfileEdit, merge
from conman.domain.secrets import SecretRef, mask

URI = "mongodb://shop:open-sesame@db/shop"
DATABASE = {"engine": "mongodb", "connection_ref": "MONGO_URI", "provisioning_mode": "clone_from_base"}
MIGRATIONS = {"repo_paths": ["migrations"], "command_ref": "migrate"}


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


def refs(edit: ProfileEdit) -> dict[str, SecretRef]:
    return {key: SecretRef(value_id=f"id of {value}", mask=mask(value)) for key, value in edit.new_secrets().items()}


def merged(profile: Profile, **fields: Any) -> Profile:
    edit = ProfileEdit.model_validate(fields)
    return merge(profile, edit, refs(edit))


FULL = merged(
    Profile(name="qa"),
    base_url="https://qa.example.com",
    env_vars={"A": text("a"), "N": {"type": "number", "value": 1}},
    secrets={"MONGO_URI": URI, "TOKEN": "0123456789"},
    database=DATABASE,
    migrations=MIGRATIONS,
    data_strategy={"seed_mode": "baseline", "seed_source_ref": "nightly"},
    lifecycle={"ttl_idle_hours": 4, "auto_cleanup": False},
)

NAMES = st.sampled_from(["A", "B", "C", "D"])
VALUES = st.one_of(
    st.builds(lambda value: {"type": "number", "value": value}, st.integers(0, 2)),
    st.builds(lambda value: {"type": "boolean", "value": value}, st.booleans()),
    st.builds(text, st.sampled_from(["", "1", "true"])),
    st.builds(lambda value: {"type": "json", "value": value}, st.sampled_from([None, 1, True, {"a": [1]}, {"a": [True]}])),
)
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["one", "two"]),
        "base_url": st.sampled_from([None, "http://a", "http://b"]),
        "env_vars": st.dictionaries(NAMES, st.none() | VALUES),
        "secrets": st.dictionaries(NAMES.map(lambda name: f"S_{name}"), st.none() | st.sampled_from(["one", "another secret"])),
        "lifecycle": st.none() | st.fixed_dictionaries({}, optional={"ttl_idle_hours": st.integers(1, 3)}),
        "data_strategy": st.none() | st.fixed_dictionaries({"seed_mode": st.sampled_from(["none", "baseline"])}),
    },
)
