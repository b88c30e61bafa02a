"""How long an `Idempotency-Key` stands for a request, and what is kept of one (`api.md` 1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from conman.domain.decision import Actor
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.times import later
from conman.services.call import (
    KEYS_LAST,
    Call,
    command_id,
    forget_keys,
    is_repeat,
    keep,
    keep_refusal,
    keep_success,
    key_id,
    recall,
    remember,
)
from conman.services.clock import new_id
from conman.store.database import Database

AT = "2026-01-31T09:30:00.000Z"
MOMENT = timedelta(milliseconds=1)
REFUSAL = DomainError(ErrorCode.CONFLICT, "something stands in the way", {"id": "x"})


def fresh_key() -> str:
    return key_id("ann", "POST", "/api/apps", new_id())


def call_of(key: str, at: str = AT) -> Call:
    return Call(command_id=command_id(key, at), at=at, actor=Actor(), user={"_id": "ann"}, keyed=True, key_id=key)


async def refused(db: Database, key: str, body: str = "body", at: str = AT) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await remember(db, key, body, at)
    return caught.value


async def test_a_repeat_has_the_time_of_the_first_and_so_its_command(db: Database) -> None:
    key = fresh_key()
    assert not await is_repeat(db, key)
    assert await remember(db, key, "body", AT) == AT
    assert await remember(db, key, "body", later(AT, KEYS_LAST - MOMENT)) == AT
    assert await is_repeat(db, key)


async def test_another_body_is_a_conflict(db: Database) -> None:
    key = fresh_key()
    await remember(db, key, "body", AT)
    assert (await refused(db, key, "other")).code is ErrorCode.CONFLICT


@pytest.mark.parametrize("body", ["body", "other"])
async def test_after_a_day_a_key_is_a_fresh_one_and_another_command(db: Database, body: str) -> None:
    key = fresh_key()
    call = call_of(key)
    await remember(db, key, "body", AT)
    await keep(db, call, {"commit_sha": "abc"})
    await keep_refusal(db, call, REFUSAL)
    again = later(AT, KEYS_LAST)
    assert await remember(db, key, body, again) == again
    assert await recall(db, call_of(key, again)) is None
    assert command_id(key, again) != command_id(key, AT)


async def test_a_refusal_is_met_again_as_it_was(db: Database) -> None:
    key = fresh_key()
    await remember(db, key, "body", AT)
    await keep_refusal(db, call_of(key), REFUSAL)
    await keep_refusal(db, call_of(key), DomainError(ErrorCode.OUT_OF_DATE, "a later one"))
    met = await refused(db, key)
    assert (met.code, met.message, met.details) == (REFUSAL.code, REFUSAL.message, REFUSAL.details)


async def test_no_refusal_stands_for_a_success_whichever_is_kept_first(db: Database) -> None:
    one, two = fresh_key(), fresh_key()
    for key in (one, two):
        await remember(db, key, "body", AT)
    await keep_refusal(db, call_of(one), REFUSAL)
    await keep_success(db, call_of(one))
    await keep_success(db, call_of(two))
    await keep_refusal(db, call_of(two), REFUSAL)
    for key in (one, two):
        assert await remember(db, key, "body", AT) == AT


async def test_upkeep_forgets_what_has_had_its_day_and_nothing_else(db: Database) -> None:
    old, young = fresh_key(), fresh_key()
    await remember(db, old, "body", AT)
    await remember(db, young, "body", later(AT, MOMENT))
    assert await forget_keys(db, later(AT, KEYS_LAST)) == 1
    assert not await is_repeat(db, old)
    assert await is_repeat(db, young)


async def test_keys_are_of_one_person_and_one_route() -> None:
    one = ("ann", "POST", "/api/apps", "key")
    assert (
        len({key_id(*one), key_id("rob", *one[1:]), key_id("ann", "PUT", *one[2:]), key_id(*one[:2], "/api/users", "key")}) == 4
    )


async def test_a_call_without_a_key_keeps_nothing(db: Database) -> None:
    call = replace(call_of(fresh_key()), keyed=False)
    await keep(db, call, {"commit_sha": "abc"})
    assert await recall(db, call) is None
