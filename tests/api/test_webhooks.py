"""What happens to an app arrives at its webhook, signed, through the whole stack (docs/webhooks.md)."""

from __future__ import annotations

import asyncio
import json

from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner

from conman.cli import cli
from tests.services.receiver import Receiver, answers, receiving
from tests.support.conman_stack import World, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLsyo"


async def told(receiver: Receiver, count: int) -> list[dict[str, object]]:
    """The messages that have arrived, once there are so many; each is verified."""

    async def look() -> bool:
        return len(receiver.requests) >= count

    await wait_for(look, f"{count} messages")
    return [Webhook(SECRET).verify(request.body, request.headers) for request in receiver.requests]


async def conman(own: World, *arguments: str) -> tuple[int, str]:
    data = ["--data", str(own.stack.data)]
    result = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, *data])
    return result.exit_code, result.output


async def test_an_event_arrives_signed_and_an_operator_sees_and_repeats_it(own: World) -> None:
    async with receiving() as receiver:
        await own.set(webhook={"url": receiver.url, "events": ["app.held"], "secret": SECRET})
        await own.max.post(f"{own.path}/hold", {"reason": "words that stay here"})
        (message,) = await told(receiver, 1)
        (event,) = [event for event in await own.audit() if event["action"] == "held"]
        assert (message["id"], message["type"]) == (event["id"], "app.held")
        assert message["actor_user_id"] == own.max.id
        assert message["app"] == {"id": own.app["id"], "name": own.app["name"]}
        assert "words that stay here" not in str(message)

        async def delivered() -> bool:
            code, shown = await conman(own, "webhooks", "show", event["id"])
            assert code == 0, shown
            return json.loads(shown)["state"] == "delivered"

        await wait_for(delivered, "the note of it")
        code, shown = await conman(own, "webhooks", "retry", event["id"])
        assert code == 0, shown
        again = await told(receiver, 2)
        assert again[0] == again[1]


async def test_a_ping_says_how_the_receiver_took_it(own: World) -> None:
    async with receiving() as receiver:
        code, shown = await conman(own, "webhooks", "ping", own.app["name"])
        assert (code, "has no webhook" in shown) == (1, True)
        await own.set(webhook={"url": receiver.url, "events": ["release.published"], "secret": SECRET})
        receiver.moods = [answers(500)]
        code, shown = await conman(own, "webhooks", "ping", own.app["name"])
        assert (code, "500" in shown) == (1, True), shown
        code, shown = await conman(own, "webhooks", "ping", own.app["id"])
        assert (code, "delivered" in shown) == (0, True), shown
