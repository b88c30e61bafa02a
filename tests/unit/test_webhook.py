"""What a webhook tells, how it is signed, where it may go, and when it is tried again (docs/webhooks.md)."""

from __future__ import annotations

import base64
import ipaddress
import json
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from conman.domain.audit import ACTIONS, make_event
from conman.domain.errors import DomainError
from conman.domain.times import later, milliseconds
from conman.domain.webhook import (
    EVENTS,
    MOVES,
    OPEN,
    DeliveryState,
    before,
    is_known,
    is_told,
    message,
    next_attempt,
    rest,
)
from conman.domain.webhook_signature import secret_problem, signed_headers
from conman.domain.webhook_target import check_url, may_reach
from conman.services.clock import new_id, now

AT = "2026-01-31T09:30:00.000Z"
ID = new_id(AT)
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = b'{"type":"release.published","data":{"tag":"r2026.01.31.1"}}'

# -- Events


@pytest.mark.parametrize(
    ("pattern", "known"),
    [
        ("*", True),
        ("release", True),
        ("release.*", True),
        ("release.published", True),
        ("app.held", True),
        ("temp_environment.expired", True),
        ("release.publishd", False),
        ("user.logged_in", False),
        ("app.settings_updated", False),
        ("webhook.ping", False),
        ("Release.*", False),
        ("", False),
    ],
)
def test_a_pattern_is_known_when_some_event_matches_it(pattern: str, known: bool) -> None:
    assert is_known(pattern) is known
    assert any(is_told([pattern], entity, action) for entity, actions in EVENTS.items() for action in actions) is known


def test_events_have_the_names_of_the_audit() -> None:
    assert {(entity, action) for entity, actions in EVENTS.items() for action in actions} <= {
        (entity, action) for entity, actions in ACTIONS.items() for action in actions
    }
    assert not is_told(["*"], "user", "logged_in")
    assert not is_told(["*"], "app", "settings_updated")
    assert not is_told(["release.published"], "release", "dropped")


# -- Messages


def event(entity_type: str, action: str, **fields: Any) -> dict[str, Any]:
    fields = {"entity_id": new_id(), "app_id": new_id(), **fields}
    return make_event(event_id=new_id(AT), occurred_at=AT, entity_type=entity_type, action=action, **fields).document()


def test_a_message_tells_states_ids_tags_and_git_objects_of_its_event() -> None:
    sha, changesets, actor = "a" * 40, [new_id(), new_id()], new_id()
    kept = event(
        "release",
        "published",
        actor_user_id=actor,
        git_sha=sha,
        before={"state": "validated", "ordered_changeset_ids": changesets},
        after={"state": "published", "tag": "r2026.01.31.1", "ordered_changeset_ids": changesets, "published_sha": sha},
    )
    assert message(kept, "shop") == {
        "id": kept["_id"],
        "type": "release.published",
        "occurred_at": AT,
        "app": {"id": kept["app_id"], "name": "shop"},
        "entity_type": "release",
        "entity_id": kept["entity_id"],
        "actor_user_id": actor,
        "data": {
            "state": "published",
            "tag": "r2026.01.31.1",
            "ordered_changeset_ids": changesets,
            "published_sha": sha,
            "previous_state": "validated",
            "git_sha": sha,
        },
    }


@pytest.mark.parametrize(
    ("entity_type", "action", "fields", "told"),
    [
        (
            "changeset",
            "created",
            {"after": {"workspace_id": ID, "author_user_id": ID, "title": "told@example.com", "state": "draft"}},
            {"workspace_id", "author_user_id", "state"},
        ),
        (
            "runtime_profile",
            "emergency_edited",
            {
                "before": {"revision_number": 1, "secrets": {"KEY": "told****told"}, "env_vars": {}},
                "after": {
                    "revision_number": 2,
                    "secrets": {"KEY": "TOLD****TOLD"},
                    "env_vars": {"A": {"type": "string", "value": "told"}},
                    "environment_ids": [],
                },
            },
            {"revision_number", "environment_ids"},
        ),
        ("app", "held", {"after": {"reason": "told@example.com is ill", "until": AT}}, {"until"}),
    ],
)
def test_words_of_people_secrets_and_emails_never_leave(
    entity_type: str, action: str, fields: dict[str, Any], told: set[str]
) -> None:
    made = message(event(entity_type, action, **fields), "shop")
    assert set(made["data"]) == told
    assert "told" not in json.dumps(made).lower()


# -- Signatures, judged by the verifier that Standard Webhooks publishes


def sent(at: str, *secrets: str, message_id: str = "msg_1") -> dict[str, str]:
    return signed_headers(message_id, milliseconds(at) // 1000, BODY, secrets)


@pytest.mark.parametrize("secret", [SECRET, SECRET.rstrip("="), "whsec_" + base64.b64encode(b"k" * 64).decode()])
def test_a_message_verifies_with_the_library_of_the_standard(secret: str) -> None:
    padded = secret + "=" * (-len(secret.removeprefix("whsec_")) % 4)
    assert Webhook(padded).verify(BODY, sent(now(), padded)) == json.loads(BODY)


def test_a_secret_without_prefix_is_the_key_as_it_stands() -> None:
    assert Webhook(b"any words do").verify(BODY, sent(now(), "any words do"))


def test_both_secrets_sign_while_a_receiver_changes_over() -> None:
    headers = sent(now(), SECRET, "the old secret")
    assert Webhook(SECRET).verify(BODY, headers)
    assert Webhook(b"the old secret").verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"a third secret").verify(BODY, headers)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(milliseconds(now()) // 1000 - 1)},
        {"webhook-signature": "v1," + base64.b64encode(b"x" * 32).decode()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_header_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, {**sent(now(), SECRET), **change})


def test_a_changed_body_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.replace(b".1", b".2"), sent(now(), SECRET))


@pytest.mark.parametrize("away", [timedelta(minutes=-6), timedelta(minutes=6)])
def test_a_message_that_is_played_again_later_is_refused(away: timedelta) -> None:
    with pytest.raises(WebhookVerificationError, match="timestamp"):
        Webhook(SECRET).verify(BODY, sent(later(now(), away), SECRET))


@pytest.mark.parametrize("size", [23, 65])
def test_a_prefixed_secret_of_another_length_is_none(size: int) -> None:
    assert secret_problem("whsec_" + base64.b64encode(b"k" * size).decode()) is not None


@pytest.mark.parametrize(
    ("secret", "sound"), [(SECRET, True), ("12345678", True), ("whsec_not base64!", False), ("whsec_", False)]
)
def test_a_secret_is_sound_by_its_form(secret: str, sound: bool) -> None:
    assert (secret_problem(secret) is None) is sound


# -- Where it may go

HOME = ["127.0.0.0/8", "10.1.0.0/16", "fd00::/8"]


@pytest.mark.parametrize(
    ("address", "public", "at_home"),
    [
        ("8.8.8.8", True, True),
        ("2606:4700::1111", True, True),
        ("::ffff:8.8.8.8", True, True),
        ("127.0.0.1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("10.2.2.3", False, False),
        ("192.168.1.1", False, False),
        ("172.16.0.1", False, False),
        ("100.64.0.1", False, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("64:ff9b::808:808", True, True),
        ("64:ff9b:1::a9fe:a9fe", False, False),
        ("::a9fe:a9fe", False, False),
        ("fec0::1", False, False),
        ("2002:a9fe:a9fe::1", False, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
        ("::", False, False),
        ("::1", False, False),
        ("fe80::1", False, False),
        ("fd00::1", False, True),
        ("ff02::1", False, False),
    ],
)
def test_only_public_addresses_and_the_operators_networks_are_reached(address: str, public: bool, at_home: bool) -> None:
    assert may_reach(ipaddress.ip_address(address), [], plain=False) is public
    assert may_reach(ipaddress.ip_address(address), HOME, plain=False) is at_home


def test_without_tls_only_the_operators_networks_are_reached() -> None:
    assert not may_reach(ipaddress.ip_address("8.8.8.8"), HOME, plain=True)
    assert may_reach(ipaddress.ip_address("10.1.2.3"), HOME, plain=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "https://127.0.0.1/x",
        "https://localhost:8443/x",
        "https://api.localhost/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://10.1.2.3/x",
        "https://user@hooks.example.com/x",
        "https:///x",
        "file:///etc/passwd",
    ],
)
def test_a_url_that_no_webhook_may_have_is_refused_when_it_is_set(url: str) -> None:
    with pytest.raises(DomainError, match=r"webhook\.url"):
        check_url(url, [])


def test_a_url_into_the_operators_networks_may_be_set() -> None:
    for url in ("http://127.0.0.1:9000/x", "http://localhost/x", "https://10.1.2.3/x", "http://receiver.internal/x"):
        check_url(url, HOME)
    check_url("https://hooks.example.com/x?y=1", [])


# -- States and times


@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("target", DeliveryState)
def test_a_delivery_moves_by_the_table_only(state: DeliveryState, target: DeliveryState) -> None:
    allowed = {
        "pending": {"sending", "failed", "canceled"},
        "sending": {"sending", "pending", "delivered", "failed", "canceled"},
    }
    assert (target in MOVES[state]) is (target.value in allowed.get(state.value, set()))
    assert (state.value in before(target)) is (target in MOVES[state])
    assert OPEN == (DeliveryState.PENDING, DeliveryState.SENDING)


DAYS = timedelta(days=3)
NOTHING = timedelta(0)


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 5), (2, 20), (3, 80), (7, 20480), (8, 21600), (1000, 21600)])
def test_pauses_grow_from_seconds_to_hours_and_differ_by_chance(attempts: int, seconds: int) -> None:
    for chance, part in ((0.0, 0.8), (0.5, 1.0), (1.0, 1.2)):
        assert next_attempt(AT, attempts, AT, DAYS, chance=chance, asked=NOTHING) == later(AT, timedelta(seconds=seconds * part))


def test_a_receiver_is_left_alone_for_as_long_as_it_asks_but_for_hours_only() -> None:
    asked = timedelta(minutes=2)
    assert next_attempt(AT, 1, AT, DAYS, chance=0.0, asked=asked) == later(AT, asked)
    assert next_attempt(AT, 1, AT, DAYS, chance=0.5, asked=timedelta(days=9)) == later(AT, timedelta(hours=6))


def test_a_message_is_given_up_when_its_next_attempt_would_come_too_late() -> None:
    assert next_attempt(later(AT, DAYS - timedelta(seconds=5)), 1, AT, DAYS, chance=0.5, asked=NOTHING) == later(AT, DAYS)
    assert next_attempt(later(AT, DAYS - timedelta(seconds=4)), 1, AT, DAYS, chance=0.5, asked=NOTHING) is None


@pytest.mark.parametrize(("fruitless", "seconds"), [(0, 0), (1, 5), (2, 10), (6, 160), (7, 300), (5000, 300)])
def test_a_receiver_that_takes_nothing_is_left_alone_for_longer_and_longer(fruitless: int, seconds: int) -> None:
    assert rest(fruitless, NOTHING) == timedelta(seconds=seconds)


def test_a_receiver_that_asks_is_left_alone_also_by_the_other_messages_but_for_minutes_only() -> None:
    assert rest(0, timedelta(seconds=60)) == timedelta(seconds=60)
    assert rest(6, timedelta(seconds=60)) == timedelta(seconds=160)
    assert rest(1, timedelta(hours=5)) == timedelta(minutes=5)
