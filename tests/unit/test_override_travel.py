"""Which overrides a release brings to a profile (`spec.md` 6)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.override_travel import PublishedRelease, arriving
from conman.domain.overrides import FrozenOverride


def of(profile_id: str, content: str) -> FrozenOverride:
    return FrozenOverride(profile_id=profile_id, content_id=content)


def release(name: str, *overrides: FrozenOverride, reverts: str | None = None) -> PublishedRelease:
    return PublishedRelease(name, overrides, reverts)


PUBLISHED = [
    release("r1", of("qa", "q1"), of("live", "l1")),
    release("r2", of("live", "l2")),
    release("r3", of("qa", "q3a"), of("qa", "q3b")),
    release("r4", of("qa", "q4")),
]


def brought(profile: str, to: str, received: Sequence[str] = (), published: Sequence[PublishedRelease] = PUBLISHED) -> list[str]:
    return [one.content_id for arrival in arriving(profile, to, published, received) for one in arrival.overrides]


@pytest.mark.parametrize(
    ("profile", "to", "received", "contents"),
    [
        ("qa", "r1", (), ["q1"]),
        ("qa", "r2", (), ["q1"]),
        ("qa", "r3", ("r1",), ["q3a", "q3b"]),
        ("qa", "r4", (), ["q1", "q3a", "q3b", "q4"]),
        ("qa", "r4", ("r1", "r4"), ["q3a", "q3b"]),
        ("qa", "r1", ("r1", "r3"), []),
        ("live", "r4", (), ["l1", "l2"]),
        ("uat", "r4", (), []),
    ],
)
def test_a_release_brings_its_own_and_all_earlier_ones_that_have_not_arrived(
    profile: str, to: str, received: Sequence[str], contents: list[str]
) -> None:
    assert brought(profile, to, received) == contents


def test_an_undone_release_brings_nothing_from_where_it_was_undone() -> None:
    published = [*PUBLISHED, release("r5", of("qa", "inverse of q3"), reverts="r3"), release("r6")]
    assert brought("qa", "r4", (), published) == ["q1", "q3a", "q3b", "q4"]
    assert brought("qa", "r6", (), published) == ["q1", "q4"], "there is nothing to take back"
    assert brought("qa", "r6", ("r1", "r3", "r4"), published) == ["inverse of q3"]


def test_only_a_published_release_brings_anything() -> None:
    with pytest.raises(ValueError, match="not published"):
        brought("qa", "r9")


@given(st.lists(st.sampled_from(["r1", "r2", "r3", "r4"]), unique=True), st.sampled_from(["qa", "live"]))
def test_whatever_is_deployed_in_whatever_order_each_override_arrives_once(path: list[str], profile: str) -> None:
    received: list[str] = []
    contents: list[str] = []
    for to in path:
        found = arriving(profile, to, PUBLISHED, received)
        received += [one.release_id for one in found]
        contents += [override.content_id for one in found for override in one.overrides]
    newest = max(path, default="r0")
    expected = [one.content_id for each in PUBLISHED if each.id <= newest for one in each.of(profile)]
    assert sorted(contents) == sorted(expected)
