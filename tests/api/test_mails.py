"""Mails of a running `conman up`: where their links lead, and where their tokens are not (`spec.md` 5 and 14)."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.conman_stack import Stack, World, wait_for


def mails_to(stack: Stack, address: str) -> list[EmailMessage]:
    mails = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in (stack.data / "outbox").glob("*.eml")]
    return [mail for mail in mails if isinstance(mail, EmailMessage) and mail["To"].addresses[0].addr_spec == address]


def files_with(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text, the outbox's aside."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "outbox" not in path.parts]
    return [str(path.relative_to(folder)) for path in paths if text.encode() in path.read_bytes()]


async def test_the_link_of_a_mail_leads_to_the_api_and_its_token_is_nowhere_else(stack: Stack, world: World) -> None:
    address = f"new-{world.fresh()}@example.com"
    await world.eve.post(f"{world.path}/invites", {"email": address, "role": "user"})

    async def arrived() -> list[EmailMessage]:
        return mails_to(stack, address)

    (mail,) = await wait_for(arrived, f"the mail to {address}")
    text = mail.get_body(("plain",))
    assert text is not None
    (link,) = [line for line in text.get_content().splitlines() if "?token=" in line]
    assert link.startswith(f"{stack.url}/accept-invite?token=")
    assert str(mail["Message-ID"]).endswith(f"@{urlsplit(stack.url).hostname}>")

    async def noted() -> bool:
        return await stack.db["mails"].find_one({"email": address, "state": "sent"}) is not None

    await wait_for(noted, "the row of the mail")
    token = link.partition("?token=")[2]
    assert len(token) == 43
    for collection in await stack.db.list_collection_names():
        async for document in stack.db[collection].find({}):
            assert token not in str(document), collection
    assert files_with(stack.data, token) == []


async def test_an_address_that_was_invited_twice_in_a_row_gets_one_mail_for_each_token(stack: Stack, world: World) -> None:
    address = f"again-{world.fresh()}@example.com"
    made = await world.eve.post(f"{world.path}/invites", {"email": address, "role": "user"})
    await world.eve.post(f"{world.path}/invites/{made['id']}/resend")

    async def ended() -> bool:
        notices = stack.db["notifications"].find({"notice.entity_id": made["id"], "state": "done"})
        return len(await notices.to_list()) == 2

    await wait_for(ended, "both notices")
    rows = await stack.db["mails"].find({"recipient": address}).sort("_id").to_list()
    # The first may have left before the second voided its token, or have been skipped since; it never leaves with a dead link.
    assert (rows[0]["state"], rows[0].get("reason")) in (("sent", None), ("skipped", "token_replaced"))
    assert (rows[1]["state"], len(rows)) == ("sent", 2)
    assert len(mails_to(stack, address)) == [row["state"] for row in rows].count("sent")


async def test_from_submit_to_publish_exactly_those_are_told_whom_the_specification_names(own: World) -> None:
    """`spec.md` 14, without waiting for upkeep: each process is started beside the write that told it."""
    release = await own.validated(await own.queued())
    await own.max.post(f"{release}/publish")
    people = {person.id: name for name, person in (("ann", own.ann), ("rob", own.rob), ("max", own.max), ("eve", own.eve))}
    expected = {
        "changeset_submitted": {"rob", "max", "eve"},
        "changeset_approved": {"ann"},
        "changeset_queued": {"max", "eve"},
        "release_created": {"eve"},
        "release_published": {"ann", "rob", "eve"},
    }

    async def told() -> dict[str, set[str]] | None:
        query = {"app_id": own.app["id"], "user_id": {"$in": [*people]}, "state": "sent"}
        rows = await own.stack.db["mails"].find(query).to_list()
        found = {kind: {people[row["user_id"]] for row in rows if row["kind"] == kind} for kind in {row["kind"] for row in rows}}
        return found if sum(map(len, found.values())) >= sum(map(len, expected.values())) else None

    assert await wait_for(told, "the mails") == expected
    assert sorted(str(mail["Subject"]).split(":")[0].split()[-1] for mail in mails_to(own.stack, own.ann.email)) == [
        "Approved",
        "published",
    ]
