"""`conman webhooks`: what apps' webhooks were told, and what they were not (docs/webhooks.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:  # Every `conman` imports this module: what its commands need comes with them.
    from conman.services.platform import Platform
    from conman.store.database import Document

webhooks = typer.Typer(help="Deliveries to the webhooks of apps.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of all local state; joins a running `conman up` there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

PING_SECONDS = 45.0
"""How long a ping waits for its end; an attempt takes at most 30 s."""

ResultT = TypeVar("ResultT")


@webhooks.command("list")
def list_deliveries(
    app: Annotated[str | None, typer.Option("--app", help="Only this app's, by name or id.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only those that are pending, sending, delivered, failed or canceled.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most, the latest first.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, the latest first, with how the last attempt ended."""
    from rich.markup import escape
    from rich.table import Table

    from conman.cli import out
    from conman.services import webhooks as services

    async def read(platform: Platform) -> list[Document]:
        app_id = None if app is None else (await services.app_named(platform.db, app))["_id"]
        return await services.listed(platform.db, app_id=app_id, state=state, limit=limit)

    rows = _with_platform(data, read)
    if as_json:
        out.print_json(json.dumps([_shown(row) for row in rows]))
        return
    table = Table("Delivery", "Event", "App", "State", "Attempts", "Last attempt", "Next", box=None, pad_edge=False)
    for row in rows:
        again = row["next_at"] if row["state"] == "pending" else ""
        app_name, last = escape(row["message"]["app"]["name"]), escape(_last(row))
        table.add_row(row["_id"], row["type"], app_name, _state(row), str(row["attempts"]), last, again)
    out.print(table)


@webhooks.command()
def show(
    delivery: Annotated[str, typer.Argument(help="Id of a delivery: that of the audit event, the `webhook-id`.")],
    data: DataOption = None,
) -> None:
    """Show a delivery as JSON: what it says, and each attempt with its answer."""
    from conman.cli import out
    from conman.services.webhooks import found

    out.print_json(json.dumps(_shown(_with_platform(data, lambda platform: found(platform.db, delivery)))))


@webhooks.command()
def retry(
    delivery: Annotated[str, typer.Argument(help="Id of a delivery that has ended, or waits for its next attempt.")],
    data: DataOption = None,
) -> None:
    """Send a delivery again, with all the patience of a new one; the receiver sees the same `webhook-id`."""
    from conman.cli import out
    from conman.services.webhooks import send_again

    row = _with_platform(data, lambda platform: send_again(platform.db, platform.commands, delivery))
    what = f"{row['_id']} is sent again: {row['type']} of app {row['message']['app']['name']}"
    out.print(what, highlight=False, markup=False)


@webhooks.command()
def ping(
    app: Annotated[str, typer.Argument(help="Name or id of the app.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message of type `webhook.ping` and say how it ended. Exit 0 when the receiver took it, 1 else."""
    from conman.cli import out
    from conman.services import webhooks as services

    async def send(platform: Platform) -> Document:
        ping_id = await services.ping(platform.db, platform.commands, await services.app_named(platform.db, app))
        deadline = asyncio.get_running_loop().time() + PING_SECONDS
        while True:
            row = await services.found(platform.db, ping_id)
            if row["log"] or row["state"] not in ("pending", "sending") or asyncio.get_running_loop().time() > deadline:
                return row
            await asyncio.sleep(0.2)

    row = _with_platform(data, send)
    if as_json:
        out.print_json(json.dumps(_shown(row)))
    else:
        last = _last(row) or "no attempt yet: no worker runs, or the receiver took nothing and is left alone for some minutes"
        out.print(f"{row['_id']}: {_state(row)}; {last}", highlight=False, markup=False)
    raise typer.Exit(0 if row["state"] == "delivered" else 1)


def _shown(row: Document) -> dict[str, Any]:
    return {"id": row["_id"], **{name: value for name, value in row.items() if name not in ("_id", "open", "forget_at")}}


def _state(row: Document) -> str:
    return f"{row['state']} ({row['reason']})" if row.get("reason") else row["state"]


def _last(row: Document) -> str:
    """How the last attempt ended, in a few words."""
    if not row["log"]:
        return ""
    tried = row["log"][-1]
    words = [str(tried["status"])] if "status" in tried else [tried["problem"]]
    if tried.get("text"):
        words.append(tried["text"])
    return f"{tried['at']} {' '.join(words)}"


def _with_platform(data: Path | None, work: Callable[[Platform], Awaitable[ResultT]]) -> ResultT:
    """Do the work on what the settings name; an exit with one line for what is refused."""
    from conman.cli import fail, joined, run
    from conman.domain.errors import DomainError
    from conman.services.platform import make_platform

    settings = joined(data)

    async def working() -> ResultT:
        platform = await make_platform(settings)
        try:
            return await work(platform)
        finally:
            await platform.close()

    try:
        return run(working)
    except DomainError as error:
        raise fail(error.message) from error
