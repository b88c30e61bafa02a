"""The payload codec (`durability.md` 24): what it hides, what it reads, and what it says when it can't."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from conman.settings.codec import CodecSettings
from conman.workflows.codec import ENCODING, KEY_ID, NONCE_BYTES, CodecError, KeyringCodec, data_converter

K1, K2 = {"k1": b"1" * 32}, {"k2": b"2" * 32}
PLANTED = "planted plaintext"

payloads = st.lists(
    st.builds(
        lambda metadata, data: Payload(metadata=metadata, data=data),
        st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=4),
        st.binary(max_size=2000),
    ),
    max_size=6,
)


def encode(codec: KeyringCodec, *given: Payload) -> list[Payload]:
    return asyncio.run(codec.encode(given))


def decode(codec: KeyringCodec, *given: Payload) -> list[Payload]:
    return asyncio.run(codec.decode(given))


def plain(text: str = PLANTED) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())


@given(payloads)
def test_any_payloads_come_back_whole_and_in_order_and_are_hidden_meanwhile(given: list[Payload]) -> None:
    codec = KeyringCodec(K1)
    encoded = encode(codec, *given)
    assert [payload.metadata["encoding"] for payload in encoded] == [ENCODING] * len(given)
    assert all(
        len(original.data) < 8 or original.data not in hidden.data for original, hidden in zip(given, encoded, strict=True)
    )
    assert decode(codec, *encoded) == given


def test_a_payload_that_looks_encrypted_before_is_encrypted_again_and_comes_back() -> None:
    codec = KeyringCodec(K1)
    twice = encode(codec, *encode(codec, plain()))
    assert decode(codec, *decode(codec, *twice)) == [plain()]


def test_the_same_payload_never_looks_the_same_twice() -> None:
    first, second = encode(KeyringCodec(K1), plain(), plain())
    assert first.data != second.data and first.data[:NONCE_BYTES] != second.data[:NONCE_BYTES]


def test_nothing_but_the_keys_id_is_told() -> None:
    [encoded] = encode(KeyringCodec(K1), plain())
    assert dict(encoded.metadata) == {"encoding": ENCODING, KEY_ID: b"k1"}


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    rotated = KeyringCodec({**K2, **K1})
    old, new = encode(KeyringCodec(K1), plain()) + encode(rotated, plain())
    assert [old.metadata[KEY_ID], new.metadata[KEY_ID]] == [b"k1", b"k2"]
    assert decode(rotated, old, plain(), new) == [plain()] * 3


def test_keys_that_only_decrypt_leave_payloads_plain() -> None:
    waiting = KeyringCodec(K1, encrypt=False)
    assert encode(waiting, plain()) == [plain()]
    assert decode(waiting, *encode(KeyringCodec(K1), plain())) == [plain()]


def test_without_keys_payloads_pass_and_encrypted_ones_are_refused_with_what_to_do() -> None:
    off = KeyringCodec({})
    assert encode(off, plain()) == decode(off, plain()) == [plain()]
    with pytest.raises(CodecError, match="under the key 'k1': add it to CONMAN_CODEC_KEYS"):
        decode(off, *encode(KeyringCodec(K1), plain()))


def test_an_unknown_key_is_named_together_with_those_that_are_there() -> None:
    with pytest.raises(CodecError, match=r"under the key 'k1': add it to CONMAN_CODEC_KEYS \(k2\)"):
        decode(KeyringCodec(K2), *encode(KeyringCodec(K1), plain()))


def test_other_bytes_under_the_same_id_are_told() -> None:
    with pytest.raises(CodecError, match="other bytes under that id"):
        decode(KeyringCodec({"k1": K2["k2"]}), *encode(KeyringCodec(K1), plain()))


def test_a_payload_that_names_another_of_our_keys_does_not_open() -> None:
    codec = KeyringCodec({"k1": b"1" * 32, "k2": b"1" * 32})
    [encoded] = encode(codec, plain())
    encoded.metadata[KEY_ID] = b"k2"
    with pytest.raises(CodecError, match="does not open"):
        decode(codec, encoded)


@given(st.data())
def test_any_changed_byte_and_any_cut_is_seen(data: st.DataObject) -> None:
    codec = KeyringCodec(K1)
    [encoded] = encode(codec, plain())
    place = data.draw(st.integers(0, len(encoded.data) - 1))
    if data.draw(st.booleans()):
        encoded.data = encoded.data[:place]
    else:
        flipped = encoded.data[place] ^ data.draw(st.integers(1, 255))
        encoded.data = encoded.data[:place] + bytes([flipped]) + encoded.data[place + 1 :]
    with pytest.raises(CodecError) as refused:
        decode(codec, encoded)
    assert PLANTED not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("key_id", [None, b"", b"\xff\xfe", b"k" * 500], ids=["missing", "empty", "no text", "long"])
def test_an_encrypted_payload_without_a_sound_key_id_is_refused_in_a_short_line(key_id: bytes | None) -> None:
    metadata = {"encoding": ENCODING} | ({} if key_id is None else {KEY_ID: key_id})
    with pytest.raises(CodecError) as refused:
        decode(KeyringCodec(K1), Payload(metadata=metadata, data=b"x" * 64))
    assert len(str(refused.value)) < 200


class Note(BaseModel):
    """What workflows carry: pydantic's models."""

    text: str
    count: int = 3


def test_models_pass_through_the_converter() -> None:
    converter = data_converter(KeyringCodec(K1))

    async def there_and_back() -> tuple[list[Payload], list[Any]]:
        encoded = await converter.encode([Note(text=PLANTED), None, b"raw"])
        return encoded, await converter.decode(encoded, [Note, type(None), bytes])

    encoded, decoded = asyncio.run(there_and_back())
    assert decoded == [Note(text=PLANTED), None, b"raw"]
    assert PLANTED.encode() not in b"".join(payload.SerializeToString() for payload in encoded)


def failed(codec: KeyringCodec, error: BaseException) -> Failure:
    failure = Failure()
    asyncio.run(data_converter(codec).encode_failure(error, failure))
    return failure


def raised() -> ApplicationError:
    """An error with a trace, a cause and details, all of which tell something."""
    try:
        try:
            raise ValueError(f"cause: {PLANTED}")
        except ValueError as cause:
            raise ApplicationError(f"message: {PLANTED}", {"detail": PLANTED}, type="invalid") from cause
    except ApplicationError as error:
        return error


def test_failures_hide_messages_traces_details_and_causes_and_come_back() -> None:
    codec = KeyringCodec(K1)
    failure = failed(codec, raised())
    shown = failure.SerializeToString()
    assert PLANTED.encode() not in shown and b"test_codec" not in shown
    assert failure.application_failure_info.type == "invalid", "types stay plain"
    error = asyncio.run(data_converter(codec).decode_failure(failure))
    assert isinstance(error, ApplicationError) and isinstance(error.__cause__, ApplicationError)
    assert (error.message, error.details) == (f"message: {PLANTED}", ({"detail": PLANTED},))
    assert error.__cause__.message == f"cause: {PLANTED}"


def test_a_failure_from_before_the_codec_is_hidden_with_its_causes_when_it_is_raised_anew() -> None:
    old = failed(KeyringCodec({}), raised())
    assert PLANTED.encode() in old.SerializeToString()
    codec = KeyringCodec(K1)
    read = asyncio.run(data_converter(codec).decode_failure(old))
    anew = failed(codec, read)
    assert PLANTED.encode() not in anew.SerializeToString()
    back = asyncio.run(data_converter(codec).decode_failure(anew))
    assert isinstance(back, ApplicationError) and isinstance(back.__cause__, ApplicationError)
    assert back.__cause__.message == f"cause: {PLANTED}"


def test_a_failure_that_passes_through_several_hands_stays_hidden_and_readable() -> None:
    codec = KeyringCodec(K1)
    converter = data_converter(codec)
    read = asyncio.run(converter.decode_failure(failed(codec, raised())))
    wrapped = ActivityError(
        f"activity: {PLANTED}",
        scheduled_event_id=1,
        started_event_id=2,
        identity="worker",
        activity_type="run_gate",
        activity_id="1",
        retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
    )
    wrapped.__cause__ = read
    outer = failed(codec, wrapped)
    assert PLANTED.encode() not in outer.SerializeToString()
    back = asyncio.run(converter.decode_failure(outer))
    assert isinstance(back.__cause__, ApplicationError) and back.__cause__.message == f"message: {PLANTED}"


def test_while_nothing_is_encrypted_failures_stay_readable_and_hidden_ones_are_still_read() -> None:
    hidden = failed(KeyringCodec(K1), raised())
    waiting = KeyringCodec(K1, encrypt=False)
    assert failed(waiting, raised()).message == f"message: {PLANTED}"
    error = asyncio.run(data_converter(waiting).decode_failure(hidden))
    assert isinstance(error, ApplicationError) and error.message == f"message: {PLANTED}"


GOOD_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("codec_keys", "", "id:base64"),
        ("codec_keys", GOOD_KEY, "id:base64"),
        ("codec_keys", "k1:c2hvcnQ=", "32 bytes"),
        ("codec_keys", f"k1:{GOOD_KEY},k1:{GOOD_KEY}", "twice"),
        ("codec_keys", f"k1:{GOOD_KEY},k2:{GOOD_KEY}", "the same key"),
        ("codec_keys", f"k1:{GOOD_KEY},", "id:base64"),
        ("codec_server_token", "x" * 31, "32 bytes"),
        ("codec_server_origins", "https://ui.example/path", "no origin"),
        ("codec_server_origins", "https://a.example *", "no origin"),
        ("codec_server_origins", "ui.example", "no origin"),
        ("codec_server_port", "65536", "65535"),
        ("codec_server_max_body_mb", "0", "greater"),
    ],
)
def test_a_bad_setting_says_what_is_wrong_without_showing_a_key(field: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CodecSettings.model_validate({field: value})
    [error] = refused.value.errors()
    assert says in error["msg"] and GOOD_KEY not in error["msg"]


def test_the_keyring_keeps_the_order_that_was_written() -> None:
    settings = CodecSettings.model_validate({"codec_keys": f"new:{GOOD_KEY}, old:{'QUFB' * 10}QUE="})
    assert list(settings.codec_keyring) == ["new", "old"]
    assert CodecSettings().codec_keyring == {}
