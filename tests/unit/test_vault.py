"""Envelope encryption and masks (`spec.md` 6): what was sealed in one place opens there and nowhere else."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.secrets import HIDDEN, mask
from conman.services.vault import DataKey, Sealed, Vault, VaultError, WrappedKey
from conman.settings.vault import generate_keyring, parse_keyring

VALUE = "correct horse battery staple"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def entry(key_id: str, key: bytes | None = None) -> str:
    return f"{key_id}:{base64.b64encode(key or os.urandom(32)).decode()}"


def new_key(vault: Vault, profile_id: str = "p", data_key_id: str = "d") -> DataKey:
    return vault.unwrap(profile_id, data_key_id, vault.new_data_key(profile_id, data_key_id))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "****"),
        ("a", "****"),
        ("abcd", "****"),
        ("abcde", "****bcde"),
        ("abcdefgh", "****efgh"),
        ("abcdefghi", "abcd****fghi"),
        ("sk_live_0123456789", "sk_l****6789"),
    ],
)
def test_a_mask_hides_all_up_to_4_characters_all_but_the_last_4_up_to_8_else_the_middle(text: str, shown: str) -> None:
    assert mask(text) == shown


@given(TEXTS)
def test_a_mask_shows_no_more_than_the_ends_of_a_value_and_never_all_of_it(text: str) -> None:
    shown_at_the_start = 4 if len(text) > 8 else 0
    shown_at_the_end = 4 if len(text) > 4 else 0
    assert mask(text) == text[:shown_at_the_start] + HIDDEN + text[len(text) - shown_at_the_end :]
    assert shown_at_the_start + shown_at_the_end < max(len(text), 1)


@given(TEXTS, NAMES, NAMES)
def test_what_was_sealed_opens_again(value: str, key_name: str, profile_id: str) -> None:
    key = new_key(Vault.of(entry("a")), profile_id)
    assert key.unseal(key_name, "v", key.seal(key_name, "v", value)) == value


def test_the_same_value_never_gives_the_same_bytes_twice() -> None:
    key = new_key(Vault.of(entry("a")))
    seals = [key.seal("K", "v", VALUE) for _ in range(100)]
    assert len({sealed.nonce for sealed in seals}) == len({sealed.ciphertext for sealed in seals}) == 100


@given(st.lists(NAMES, min_size=6, max_size=6))
def test_a_value_opens_only_for_its_profile_key_name_and_id(names: list[str]) -> None:
    vault = Vault.of(entry("a"))
    mine, theirs = tuple(names[:3]), tuple(names[3:])
    wrapped = vault.new_data_key(mine[0], "d")
    sealed = vault.unwrap(mine[0], "d", wrapped).seal(mine[1], mine[2], VALUE)
    key = vault.unwrap(mine[0], "d", wrapped)
    # The same key bytes for another profile can't be had (`unwrap` refuses), so the other profile is claimed here.
    key.profile_id = theirs[0]
    if mine == theirs:
        assert key.unseal(theirs[1], theirs[2], sealed) == VALUE
        return
    with pytest.raises(VaultError) as refused:
        key.unseal(theirs[1], theirs[2], sealed)
    assert VALUE not in str(refused.value)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17])
def test_truncated_ciphertext_is_refused_in_one_line_without_the_value(cut: int) -> None:
    key = new_key(Vault.of(entry("a")))
    sealed = key.seal("DB_PASSWORD", "value-7", VALUE)
    for damaged in (
        replace(sealed, ciphertext=sealed.ciphertext[:cut]),
        replace(sealed, ciphertext=sealed.ciphertext[:-1]),
        replace(sealed, nonce=sealed.nonce[: cut % 12]),
    ):
        with pytest.raises(VaultError) as refused:
            key.unseal("DB_PASSWORD", "value-7", damaged)
        said = str(refused.value)
        assert "DB_PASSWORD" in said
        assert "value-7" in said
        assert "\n" not in said
        assert VALUE not in said


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_one_flipped_bit_is_refused(place: int, bit: int) -> None:
    key = new_key(Vault.of(entry("a")))
    sealed = key.seal("K", "v", VALUE)
    data = bytearray(sealed.nonce + sealed.ciphertext)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(VaultError):
        key.unseal("K", "v", Sealed(bytes(data[:12]), bytes(data[12:])))


def test_a_key_that_is_not_primary_still_decrypts_and_only_the_primary_one_wraps() -> None:
    old, new = entry("old"), entry("new")
    before, after = Vault.of(old), Vault.of(f"{new},{old}")
    kept = before.new_data_key("p", "d")
    sealed = before.unwrap("p", "d", kept).seal("K", "v", VALUE)
    assert after.unwrap("p", "d", kept).unseal("K", "v", sealed) == VALUE
    moved = after.rewrap("p", "d", kept)
    assert (kept.master_key_id, moved.master_key_id) == ("old", "new")
    assert Vault.of(new).unwrap("p", "d", moved).unseal("K", "v", sealed) == VALUE
    assert after.master_key_ids == ("new", "old")


def test_a_missing_master_key_and_a_wrong_one_are_told_apart_by_id() -> None:
    kept = Vault.of(entry("main")).new_data_key("p", "d")
    with pytest.raises(VaultError, match="main is not in the keyring"):
        Vault.of(entry("other")).unwrap("p", "d", kept)
    with pytest.raises(VaultError, match="holds another key by that id"):
        Vault.of(entry("main")).unwrap("p", "d", kept)


@pytest.mark.parametrize(("profile_id", "data_key_id"), [("q", "d"), ("p", "e"), ("pd", "")])
def test_a_wrapped_data_key_opens_only_for_its_profile_and_id(profile_id: str, data_key_id: str) -> None:
    vault = Vault.of(entry("a"))
    kept = vault.new_data_key("p", "d")
    with pytest.raises(VaultError):
        vault.unwrap(profile_id, data_key_id, kept)


@pytest.mark.parametrize("wrapped", [b"", b"x" * 7, b"x" * 12, b"x" * 60])
def test_a_damaged_wrapped_key_is_refused(wrapped: bytes) -> None:
    with pytest.raises(VaultError):
        Vault.of(entry("a")).unwrap("p", "d", WrappedKey("a", wrapped))


_TOO_SHORT, _TOO_LONG = entry("a", b"x" * 31), entry("a", b"x" * 33)


@pytest.mark.parametrize(
    "text", ["", ",", "key", "a:", ":AAAA", "a b:AAAA", "a:!!!!", "é:AAAA", f"{entry('a', b'k' * 32)},", _TOO_SHORT, _TOO_LONG]
)
def test_a_bad_keyring_is_refused_without_showing_any_of_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"entry|the key") as refused:
        parse_keyring(text)
    secret = text.partition(":")[2].rstrip(",")
    assert not secret or secret not in str(refused.value)


def test_a_key_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_keyring(f"{entry('a')},{entry('a')}")


def test_no_key_is_shown_by_a_vault() -> None:
    keyring = entry("a", b"k" * 32)
    vault = Vault.of(keyring)
    assert "kkkk" not in repr(vault)
    assert keyring.partition(":")[2] not in repr(vault)


def test_a_digest_tells_texts_apart_by_key_and_purpose_and_holds_none_of_them() -> None:
    vault, other = Vault.of(generate_keyring()), Vault.of(generate_keyring())
    digest = vault.digest("profiles", "a", "bc")
    others = [vault.digest("profiles", "ab", "c"), vault.digest("keys", "a", "bc"), other.digest("profiles", "a", "bc")]
    assert digest == vault.digest("profiles", "a", "bc")
    assert len({digest, *others}) == 4
    assert len(digest) == 64
