"""Events of an app on their way to its webhook: over a real store, to a real receiver in every mood (docs/webhooks.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from conman.activities.reconcile_webhooks import start_missing_webhooks
from conman.config import Settings
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.times import later
from conman.domain.webhook import DeliveryState, EndReason, Problem, Round
from conman.services import app_settings, webhooks
from conman.services.clock import now
from conman.services.expiry import forget_expired
from conman.services.platform import Platform
from conman.services.webhook_http import NoAnswerError, Poster
from conman.services.webhook_sending import WebhookSending
from conman.store import records, webhook_feed
from conman.store.database import Document
from conman.store.outgoing import sweep
from tests.services import receiver as moods
from tests.services.receiver import Mood, Receiver, answers, receiving, self_signed
from tests.services.registry import Registry
from tests.support.crashes import crash_at

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
HOME = ["127.0.0.0/8"]
HELD = {"reason": "a word of somebody@example.com", "until": None}


@pytest.fixture
async def platform(registry: Registry) -> AsyncIterator[Platform]:
    async with registry.process() as made:
        made.settings = made.settings.model_copy(update={"webhook_networks": HOME})
        registry.app_id = (await registry.make(made))["_id"]
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def subscribe(registry: Registry, platform: Platform, url: str, *events: str, **fields: Any) -> Document:
    """Set the app's webhook, as an app_admin does."""
    app = await registry.app(platform)
    patch = {"webhook": {"url": url, "events": [*events] or ["app.*"], **({"secret": SECRET} | fields)}}
    return await app_settings.change(platform, registry.call(), registry.app_id, patch, app["version"])


async def hold(registry: Registry, platform: Platform, app_id: str | None = None) -> str:
    """Something happens to the app, by a write as any other; the id of the event."""
    app_id = app_id or registry.app_id
    call = registry.call()
    entries = call.audit(Event("app", app_id, "held", after=HELD), app_id=app_id)
    await records.update_part(platform.db, "apps", app_id, set_fields={}, at=call.at, outgoing=entries)
    return entries[0]["id"]


def sending(platform: Platform, **settings: Any) -> WebhookSending:
    chosen = Settings(webhook_networks=HOME, webhook_timeout_seconds=1, **settings)
    return WebhookSending(chosen, platform, Poster(chosen))


async def rows(platform: Platform) -> list[Document]:
    return await platform.db[webhook_feed.DELIVERIES].find().sort("_id", 1).to_list()


async def row(platform: Platform, delivery_id: str) -> Document:
    return await webhooks.found(platform.db, delivery_id)


async def due_now(platform: Platform) -> None:
    """Let the time of the next attempt have come."""
    await platform.db[webhook_feed.DELIVERIES].update_many({"state": "pending"}, {"$set": {"next_at": now()}})


# -- Deliveries are made with the audit


async def test_each_event_that_a_webhook_subscribes_to_becomes_one_delivery(registry: Registry, platform: Platform) -> None:
    await subscribe(registry, platform, "https://hooks.example.com/x", "app.held", "release.published")
    event_id = await hold(registry, platform)
    other = await registry.make(platform, "other")
    await hold(registry, platform, other["_id"])
    (made,) = await rows(platform)
    assert (made["_id"], made["type"], made["state"], made["app_id"]) == (event_id, "app.held", "pending", registry.app_id)
    assert made["message"]["app"] == {"id": registry.app_id, "name": "shop"}
    assert "somebody@example.com" not in str(made)


async def test_setting_a_webhook_tells_it_nothing(registry: Registry, platform: Platform) -> None:
    await subscribe(registry, platform, "https://hooks.example.com/x", "*")
    assert await rows(platform) == []


@pytest.mark.parametrize("point", ["deliver.audited", "deliver.put"])
async def test_a_process_that_dies_while_it_delivers_loses_and_doubles_no_event(
    registry: Registry, platform: Platform, point: str
) -> None:
    await subscribe(registry, platform, "https://hooks.example.com/x")
    with crash_at(point):
        await hold(registry, platform)
    assert await sweep(platform.db) == 1
    (made,) = await rows(platform)
    assert made["type"] == "app.held"


async def test_what_a_process_missed_that_had_not_heard_of_a_webhook_is_found_in_the_audit(
    registry: Registry, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_feed, "KNOWN_FOR_SECONDS", 3600.0)
    before = await hold(registry, platform)  # this process now knows for an hour that there is no webhook
    await asyncio.sleep(0.002)  # the change has a later time than the event before it
    await registry.apart(_subscribe_elsewhere(registry))
    missed = await hold(registry, platform)
    assert await rows(platform) == []
    assert await webhook_feed.backfill(platform.db, now()) == 0, "others may not have heard of it yet"
    in_a_while = later(now(), timedelta(minutes=2))
    assert await webhook_feed.backfill(platform.db, in_a_while) == 1
    assert await webhook_feed.backfill(platform.db, in_a_while) == 0
    assert [made["_id"] for made in await rows(platform)] == [missed]
    assert before < missed


async def test_what_was_missed_before_a_webhook_was_changed_again_is_found_too(
    registry: Registry, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_feed, "KNOWN_FOR_SECONDS", 3600.0)
    await hold(registry, platform)
    await asyncio.sleep(0.002)
    await registry.apart(_subscribe_elsewhere(registry))
    missed = await hold(registry, platform)
    await asyncio.sleep(0.002)
    await registry.apart(_subscribe_elsewhere(registry, "https://hooks.example.com/y"))
    assert await webhook_feed.backfill(platform.db, later(now(), timedelta(minutes=2))) == 1
    assert [made["_id"] for made in await rows(platform)] == [missed]


def _subscribe_elsewhere(registry: Registry, url: str = "https://hooks.example.com/x") -> Any:
    async def work(elsewhere: Platform) -> None:
        await subscribe(registry, elsewhere, url)

    return work


async def test_what_happens_in_apps_without_webhook_reads_nothing_more(registry: Registry, platform: Platform) -> None:
    await hold(registry, platform)
    known = webhook_feed._known_of(platform.db)  # pyright: ignore[reportPrivateUsage]
    read_at = known.read_at
    for _ in range(3):
        await hold(registry, platform)
    assert known.read_at == read_at


async def test_whoever_listens_hears_which_apps_have_something_new(registry: Registry, platform: Platform) -> None:
    heard: list[str] = []
    webhook_feed.hear_of_new(platform.db, heard.extend)
    await hold(registry, platform)
    await subscribe(registry, platform, "https://hooks.example.com/x")
    await hold(registry, platform)
    assert heard == [registry.app_id]


# -- What arrives


async def test_a_message_arrives_signed_and_a_replay_is_refused(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)
    (request,) = receiver.requests
    assert request.line == "POST /hook?x=1 HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    told = Webhook(SECRET).verify(request.body, request.headers)
    assert (told["id"], told["type"], request.headers["webhook-id"]) == (event_id, "app.held", event_id)
    assert b"example.com" not in request.body
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body.replace(b"app.held", b"app.left"), request.headers)
    with pytest.raises(WebhookVerificationError):
        early = str(int(request.headers["webhook-timestamp"]) - 301)
        Webhook(SECRET).verify(request.body, {**request.headers, "webhook-timestamp": early})
    made = await row(platform, event_id)
    assert (made["state"], made["attempts"], [tried["status"] for tried in made["log"]]) == ("delivered", 1, [204])
    assert "open" not in made
    assert SECRET not in str(made)


async def test_the_secret_that_was_replaced_signs_for_a_day_beside_the_new_one(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url, secret="the old secret")
    after = await subscribe(registry, platform, receiver.url)
    assert "previous" not in str((await registry.audit(platform, "settings_updated"))[-1])
    await hold(registry, platform)
    await sending(platform).send_round(registry.app_id)
    for secret in (SECRET, b"the old secret"):
        assert Webhook(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)
    over = {"settings.webhook.previous_until": later(now(), -timedelta(seconds=1))}
    await platform.db["apps"].update_one({"_id": after["_id"]}, {"$set": over})
    await hold(registry, platform)
    await sending(platform).send_round(registry.app_id)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"the old secret").verify(receiver.requests[1].body, receiver.requests[1].headers)
    assert Webhook(SECRET).verify(receiver.requests[1].body, receiver.requests[1].headers)


async def test_a_secret_that_was_set_before_webhooks_were_sent_signs_as_it_stands(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url, secret="0123456789abcdef")
    await hold(registry, platform)
    await sending(platform).send_round(registry.app_id)
    assert Webhook(b"0123456789abcdef").verify(receiver.requests[0].body, receiver.requests[0].headers)


async def test_nothing_leaves_unsigned(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url, secret=None)
    event_id = await hold(registry, platform)
    assert await sending(platform).send_round(registry.app_id) == Round()
    made = await row(platform, event_id)
    assert (made["state"], made["reason"], receiver.requests) == ("failed", EndReason.NO_SECRET, [])
    with pytest.raises(DomainError, match="without a secret"):
        await webhooks.ping(platform.db, platform.commands, await registry.app(platform))


async def test_messages_of_an_app_leave_one_by_one_in_order(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url)
    ids = [await hold(registry, platform) for _ in range(4)]
    assert await sending(platform).send_round(registry.app_id) == Round(taken=4)
    assert [request.headers["webhook-id"] for request in receiver.requests] == sorted(ids)


# -- Bad moods


@pytest.mark.parametrize(
    ("mood", "problem", "status"),
    [
        (answers(500, body=b"oh dear"), Problem.STATUS, 500),
        (answers(404), Problem.STATUS, 404),
        (answers(302, "Location: http://127.0.0.1:1/elsewhere"), Problem.STATUS, 302),
        (moods.hangs, Problem.TIMEOUT, None),
        (moods.closes, Problem.BROKEN, None),
        (moods.speaks_no_http, Problem.BROKEN, None),
        (moods.never_ends_its_headers, Problem.BROKEN, None),
        (moods.informs_for_ever, Problem.TIMEOUT, None),
        (moods.never_ends_its_answer(500), Problem.STATUS, 500),
    ],
    ids=["500", "404", "redirect", "hangs", "closes", "no HTTP", "endless headers", "endless hints", "endless answer"],
)
async def test_an_attempt_that_fails_is_noted_and_made_again_later_under_the_same_id(
    registry: Registry, platform: Platform, receiver: Receiver, mood: Mood, problem: Problem, status: int | None
) -> None:
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    receiver.moods = [mood]
    done = await sending(platform).send_round(registry.app_id)
    assert (done.taken, done.failed) == (0, 1)
    assert done.wait_seconds is not None and 2 < done.wait_seconds <= 6.1
    made = await row(platform, event_id)
    (tried,) = made["log"]
    assert (made["state"], tried["problem"], tried.get("status")) == ("pending", problem, status)
    assert len(tried["text"]) <= 200
    await due_now(platform)
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == event_id
    assert first.body == second.body
    assert (await row(platform, event_id))["attempts"] == 2


async def test_a_yes_is_a_yes_whatever_comes_after_it(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url)
    await hold(registry, platform)
    receiver.moods = [moods.never_ends_its_answer(200)]
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)


async def test_nobody_listens(registry: Registry, platform: Platform) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        await subscribe(registry, platform, f"http://127.0.0.1:{taken.getsockname()[1]}/")
        event_id = await hold(registry, platform)
        await sending(platform).send_round(registry.app_id)
    assert (await row(platform, event_id))["log"][0]["problem"] == Problem.CONNECT


async def test_a_receiver_that_asks_for_rest_gets_it(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url)
    await hold(registry, platform)
    receiver.moods = [answers(429, "Retry-After: 600")]
    done = await sending(platform).send_round(registry.app_id)
    assert done.wait_seconds is not None and 590 < done.wait_seconds <= 600
    assert done.asked_seconds == 600


async def test_a_receiver_that_says_gone_is_not_told_this_again_and_the_next_one_is_tried(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    first, second = [await hold(registry, platform) for _ in range(2)]
    receiver.moods = [answers(410)]
    assert await sending(platform).send_round(registry.app_id) == Round(taken=2)
    gone, taken = await row(platform, first), await row(platform, second)
    assert (gone["state"], gone["reason"], taken["state"]) == ("failed", EndReason.GONE, "delivered")


async def test_a_message_that_fails_lets_the_others_pass(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url)
    bad, good = [await hold(registry, platform) for _ in range(2)]
    receiver.moods = [answers(500)]
    assert (await sending(platform).send_round(registry.app_id)).failed == 1
    assert (await sending(platform).send_round(registry.app_id)).taken == 1
    assert [(await row(platform, one))["state"] for one in (bad, good)] == ["pending", "delivered"]


async def test_a_message_is_given_up_after_the_operators_patience(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    long_ago = {"since": later(now(), -timedelta(hours=1))}
    await platform.db[webhook_feed.DELIVERIES].update_one({"_id": event_id}, {"$set": long_ago})
    receiver.always = answers(503)
    assert (await sending(platform, webhook_patience_hours=1).send_round(registry.app_id)).wait_seconds is None
    made = await row(platform, event_id)
    assert (made["state"], made["reason"], made["log"][-1]["status"]) == ("failed", EndReason.GAVE_UP, 503)


async def test_what_waits_behind_a_receiver_that_takes_nothing_is_given_up_without_a_turn_of_its_own(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    tried, waiting = [await hold(registry, platform) for _ in range(2)]
    receiver.always = answers(503)
    out = sending(platform, webhook_patience_hours=1)
    await out.send_round(registry.app_id)
    assert (await row(platform, waiting))["since"] is not None
    long_ago = {"since": later(now(), -timedelta(hours=2))}
    await platform.db[webhook_feed.DELIVERIES].update_one({"_id": waiting}, {"$set": long_ago})
    await platform.db[webhook_feed.DELIVERIES].update_one({"_id": tried}, {"$set": {"next_at": "0"}})
    await out.send_round(registry.app_id)
    made = await row(platform, waiting)
    assert (made["state"], made.get("reason"), made["attempts"], "open" in made) == ("failed", EndReason.GAVE_UP, 0, False)
    assert (await row(platform, tried))["state"] == "pending"
    assert len(receiver.requests) == 2


async def test_words_of_a_receiver_that_repeat_a_token_are_not_kept(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    receiver.moods = [answers(500, body=f"bad\x1b signature for {SECRET}".encode() + b"z" * 5000)]
    await sending(platform).send_round(registry.app_id)
    (tried,) = (await row(platform, event_id))["log"]
    assert tried["text"].startswith("bad signature for")
    assert SECRET[6:] not in str(tried)


# -- Where it leads


async def test_an_address_that_webhooks_may_not_reach_is_not_connected_to_by_whichever_name(receiver: Receiver) -> None:
    nowhere = Poster(Settings(webhook_timeout_seconds=5))
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
        with pytest.raises(NoAnswerError) as refused:
            await nowhere.post(f"https://{host}:{receiver.port}/", {}, b"{}")
        assert refused.value.problem is Problem.FORBIDDEN_ADDRESS
    assert receiver.requests == []


async def test_a_name_is_looked_up_once_and_the_address_that_was_judged_is_reached(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, **more: Any) -> Any:
        """The first answer is an address that may be reached, each later one another."""
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "169.254.169.254", port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    poster = Poster(Settings(webhook_networks=HOME, webhook_timeout_seconds=5))
    answer = await poster.post(f"http://receiver.test:{receiver.port}/", {}, b"{}")
    assert (answer.status, looked_up) == (204, ["receiver.test"])
    assert receiver.requests[0].headers["host"] == f"receiver.test:{receiver.port}"
    with pytest.raises(NoAnswerError) as refused:
        await poster.post(f"http://receiver.test:{receiver.port}/", {}, b"{}")
    assert refused.value.problem is Problem.FORBIDDEN_ADDRESS


async def test_a_name_without_address_is_a_problem_of_names() -> None:
    with pytest.raises(NoAnswerError) as refused:
        await Poster(Settings(webhook_timeout_seconds=20)).post("https://nowhere.invalid/", {}, b"{}")
    assert refused.value.problem is Problem.DNS


async def test_a_certificate_must_be_for_the_name_and_by_an_authority_that_is_trusted(tmp_path: Path) -> None:
    authority = tmp_path / "receiver.pem"
    authority.write_bytes(self_signed("localhost"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority)
    trusting = Poster(Settings(webhook_networks=HOME, webhook_ca_file=authority))
    async with receiving(tls) as receiver:
        assert (await trusting.post(f"https://localhost:{receiver.port}/", {}, b"{}")).is_yes
        for poster, host in ((trusting, "127.0.0.1"), (Poster(Settings(webhook_networks=HOME)), "localhost")):
            with pytest.raises(NoAnswerError) as refused:
                await poster.post(f"https://{host}:{receiver.port}/", {}, b"{}")
            assert refused.value.problem is Problem.TLS
        assert len(receiver.requests) == 1


async def test_a_receiver_that_wants_a_certificate_of_ours_is_a_problem_of_tls(tmp_path: Path) -> None:
    authority = tmp_path / "receiver.pem"
    authority.write_bytes(self_signed("localhost"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    tls.load_cert_chain(authority)
    tls.verify_mode = ssl.CERT_REQUIRED

    def refuses(listening: socket.socket) -> None:
        """By TLS 1.3, which lets the client finish first; the connection stays until the client has closed it."""
        taken, _ = listening.accept()
        with tls.wrap_socket(taken, server_side=True, do_handshake_on_connect=False) as wrapped:
            with pytest.raises(ssl.SSLError):
                wrapped.do_handshake()
            wrapped.settimeout(10)
            with suppress(OSError):
                while socket.socket.recv(wrapped, 4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(refuses, listening))
        poster = Poster(Settings(webhook_networks=HOME, webhook_ca_file=authority))
        with pytest.raises(NoAnswerError) as refused:
            await poster.post(f"https://localhost:{listening.getsockname()[1]}/", {}, b"{}")
        await serving
    assert refused.value.problem is Problem.TLS


async def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    answer = await Poster(Settings(webhook_networks=HOME)).post(receiver.url, {}, b"{}")
    assert answer.is_yes


# -- Ends, crashes and operators


@pytest.mark.parametrize(("point", "times"), [("webhook.begun", 1), ("webhook.answered", 2)])
async def test_a_worker_that_dies_in_an_attempt_sends_the_same_message_again(
    registry: Registry, platform: Platform, receiver: Receiver, point: str, times: int
) -> None:
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    with crash_at(point):
        await sending(platform).send_round(registry.app_id)
    assert (await row(platform, event_id))["state"] == DeliveryState.SENDING
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)
    assert [request.headers["webhook-id"] for request in receiver.requests] == [event_id] * times


async def test_what_a_webhook_that_was_removed_had_still_to_be_told_is_canceled(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    after = await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    await app_settings.change(platform, registry.call(), registry.app_id, {"webhook": None}, after["version"] + 1)
    assert await sending(platform).send_round(registry.app_id) == Round()
    made = await row(platform, event_id)
    assert (made["state"], made["reason"], receiver.requests) == ("canceled", EndReason.WEBHOOK_REMOVED, [])


async def test_everything_that_is_left_is_canceled_once(registry: Registry, platform: Platform, receiver: Receiver) -> None:
    await subscribe(registry, platform, receiver.url)
    await hold(registry, platform)
    out = sending(platform)
    assert [await out.end_all(registry.app_id, DeliveryState.CANCELED, EndReason.CANCELED) for _ in range(2)] == [1, 0]
    assert await out.send_round(registry.app_id) == Round()
    assert receiver.requests == []


class Starting:
    """In place of Temporal: which webhooks' processes were started; none of them runs."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def start_webhook(self, app_id: str) -> None:
        self.started.append(app_id)


async def test_an_operator_sends_a_delivery_again_that_has_ended_or_waits(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    commands: Any = Starting()
    await subscribe(registry, platform, receiver.url)
    event_id = await hold(registry, platform)
    with crash_at("webhook.begun"):
        await sending(platform).send_round(registry.app_id)
    with pytest.raises(DomainError) as refused:
        await webhooks.send_again(platform.db, commands, event_id)
    assert refused.value.code is ErrorCode.CONFLICT
    receiver.moods = [answers(500)]
    await sending(platform).send_round(registry.app_id)
    await webhooks.send_again(platform.db, commands, event_id)
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)
    again = await webhooks.send_again(platform.db, commands, event_id)
    assert (again["state"], again["attempts"], len(again["log"])) == ("pending", 0, 2)
    assert await sending(platform).send_round(registry.app_id) == Round(taken=1)
    assert [json.loads(request.body)["id"] for request in receiver.requests] == [event_id] * 3
    assert commands.started == [registry.app_id] * 2
    assert [made["_id"] for made in await webhooks.listed(platform.db, app_id=None, state="delivered", limit=5)] == [event_id]


async def test_a_ping_is_told_whatever_a_webhook_subscribes_to(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    commands: Any = Starting()
    with pytest.raises(DomainError, match="has no webhook"):
        await webhooks.ping(platform.db, commands, await registry.app(platform))
    await subscribe(registry, platform, receiver.url, "release.published")
    ping_id = await webhooks.ping(platform.db, commands, await webhooks.app_named(platform.db, "shop"))
    await sending(platform).send_round(registry.app_id)
    told = Webhook(SECRET).verify(receiver.requests[0].body, receiver.requests[0].headers)
    assert (told["id"], told["type"]) == (ping_id, "webhook.ping")
    receiver.moods = [answers(500)]
    failed = await webhooks.ping(platform.db, commands, await registry.app(platform))
    await sending(platform).send_round(registry.app_id)
    assert (await row(platform, failed))["reason"] == EndReason.GAVE_UP


async def test_deliveries_are_forgotten_days_after_their_end_and_open_ones_never(
    registry: Registry, platform: Platform, receiver: Receiver
) -> None:
    await subscribe(registry, platform, receiver.url)
    await hold(registry, platform)
    await sending(platform, webhook_delivery_days=3).send_round(registry.app_id)
    kept = await hold(registry, platform)
    for days, left in ((2, 2), (4, 1)):
        await forget_expired(platform.db, later(now(), timedelta(days=days)))
        assert len(await rows(platform)) == left
    assert [made["_id"] for made in await rows(platform)] == [kept]


async def test_upkeep_starts_the_process_of_an_app_that_has_something_to_tell(
    registry: Registry, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: Any = Starting()

    async def none_runs(*_: Any) -> bool:
        return False

    monkeypatch.setattr("conman.activities.reconcile_webhooks._is_running", none_runs)
    await subscribe(registry, platform, "https://hooks.example.com/x")
    assert await start_missing_webhooks(platform.db, commands) == 0
    for _ in range(2):
        await hold(registry, platform)
    assert await start_missing_webhooks(platform.db, commands) == 1
    assert commands.started == [registry.app_id]
