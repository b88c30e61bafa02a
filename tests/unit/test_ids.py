"""UUIDv7 ids (`api.md` 1, `durability.md` 3)."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.ids import MAX_TIME_MS, derived_uuid7, first_id_of, is_uuid, random_uuid7, time_of, uuid7

TIMES = st.integers(min_value=0, max_value=MAX_TIME_MS)
NOISE = st.binary(min_size=10, max_size=16)
PARTS = st.lists(st.text(), min_size=1, max_size=4)


@given(TIMES, NOISE)
def test_an_id_has_version_7_the_rfc_variant_and_its_time(at_ms: int, noise: bytes):
    text = uuid7(at_ms, noise)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == at_ms == time_of(text)


def test_an_id_is_the_one_of_the_rfc_example():
    noise = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    assert uuid7(0x017F22E279B0, noise) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(TIMES, NOISE, NOISE)
def test_ids_of_different_noise_differ_in_all_74_bits_that_are_kept(at_ms: int, one: bytes, other: bytes):
    kept = [int.from_bytes(noise[:10], "big") for noise in (one, other)]
    kept = [(noise >> 68, noise & (2**62 - 1)) for noise in kept]
    assert (uuid7(at_ms, one) == uuid7(at_ms, other)) is (kept[0] == kept[1])


@given(TIMES, TIMES, NOISE, NOISE)
def test_ids_sort_by_their_time(first: int, second: int, one: bytes, other: bytes):
    if first != second:
        assert (uuid7(first, one) < uuid7(second, other)) is (first < second)


@given(TIMES, PARTS)
def test_a_derived_id_is_the_same_every_time(at_ms: int, parts: list[str]):
    first = derived_uuid7(at_ms, *parts)
    assert first == derived_uuid7(at_ms, *parts)
    assert uuid.UUID(first).version == 7
    assert time_of(first) == at_ms


@given(PARTS, PARTS)
def test_other_parts_derive_another_id(one: list[str], other: list[str]):
    assert (derived_uuid7(5, *one) == derived_uuid7(5, *other)) is (one == other)


def test_the_borders_between_the_parts_count():
    assert derived_uuid7(1, "a", "bc") != derived_uuid7(1, "ab", "c") != derived_uuid7(1, "abc")


def test_a_derived_id_never_changes_between_versions_of_conman():
    assert derived_uuid7(1_700_000_000_000, "changeset:x", "owned", "7", "0") == ("018bcfe5-6800-7919-8d66-3e7ddc9fc00d")


def test_random_ids_differ():
    assert len({random_uuid7(1) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("at_ms", [-1, MAX_TIME_MS + 1])
def test_a_time_outside_48_bits_is_refused(at_ms: int):
    with pytest.raises(ValueError, match="at_ms"):
        uuid7(at_ms, bytes(10))


def test_the_first_and_the_last_time_fit():
    assert uuid7(0, bytes(10)) == "00000000-0000-7000-8000-000000000000"
    assert uuid7(MAX_TIME_MS, b"\xff" * 10) == "ffffffff-ffff-7fff-bfff-ffffffffffff"


def test_nine_random_bytes_are_too_few():
    with pytest.raises(ValueError, match="needs 10"):
        uuid7(0, bytes(9))


def test_nothing_is_derived_from_no_parts():
    with pytest.raises(ValueError, match="at least one part"):
        derived_uuid7(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "00000000-0000-7000-8000-00000000000",
        "00000000-0000-7000-8000-0000000000000",
        "00000000-0000-7000-8000-00000000000g",
        "00000000-0000-7000-8000-00000000000A",
        "00000000000070008000000000000000",
        "{00000000-0000-7000-8000-000000000000}",
        "00000000-0000-7000-8000-000000000000\n",
        "\uff10\uff10000000-0000-7000-8000-000000000000",
    ],
)
def test_only_canonical_text_is_a_uuid(text: str):
    assert not is_uuid(text)
    with pytest.raises(ValueError, match="not a UUIDv7"):
        time_of(text)


def test_any_version_is_a_uuid_but_only_the_seventh_has_a_time():
    text = str(uuid.UUID(int=0, version=4))
    assert is_uuid(text)
    with pytest.raises(ValueError, match="not a UUIDv7"):
        time_of(text)


@pytest.mark.parametrize("order", [0, 1, 7, 4094, 4095])
def test_ids_of_one_time_sort_by_their_order(order: int) -> None:
    """`durability.md` 3: events of one write are read in the order in which they were written."""
    ids = [derived_uuid7(1_700_000_000_000, "entity", str(n), order=n) for n in (order, order + 1)]
    assert all(is_uuid(one) and time_of(one) == 1_700_000_000_000 for one in ids)
    if order < 4095:
        assert ids == sorted(ids)
    assert derived_uuid7(1_700_000_000_000, "entity", str(order), order=order) == ids[0]


@pytest.mark.parametrize("at_ms", [0, 1, 1_700_000_000_000, MAX_TIME_MS])
def test_the_first_id_of_a_time_sorts_after_all_earlier_and_before_all_of_that_time(at_ms: int) -> None:
    first = first_id_of(at_ms)
    assert first <= uuid7(at_ms, bytes(10)) < f"{uuid7(at_ms, bytes(10))}:1:000000001"
    assert first <= uuid7(at_ms, b"\xff" * 10)
    assert at_ms == 0 or uuid7(at_ms - 1, b"\xff" * 10) + ":9:999999999" < first
