"""`conman mails`: which mail went to whom, how it ended, and to try one again (`spec.md` 14 and 15)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from conman.domain.mail import MailState
from conman.domain.notification import NoticeKind

if TYPE_CHECKING:  # Every `conman` imports this module: what its commands need comes with them.
    from conman.store.database import Database

mails = typer.Typer(help="The mails that Conman sends: one per event and recipient.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of all local state; joins a running `conman up` there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
MailArgument = Annotated[str, typer.Argument(help="Id of the mail, as `conman mails list` shows it.")]

ResultT = TypeVar("ResultT")


@mails.command("list")
def list_mails(
    state: Annotated[MailState | None, typer.Option("--state", help="Only mails in this state.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Only mails to this address.")] = None,
    app: Annotated[str | None, typer.Option("--app", help="Only mails about this app, by its id.")] = None,
    notice: Annotated[str | None, typer.Option("--notice", help="Only mails of this event, by the notice's id.")] = None,
    kind: Annotated[NoticeKind | None, typer.Option("--kind", help="Only mails of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List mails, newest first: to whom, about what, and how each ended."""
    from rich.table import Table

    from conman.cli import out
    from conman.services.mail_reports import Wanted, listed

    wanted = Wanted(state, to, app, notice, None if kind is None else kind.value)
    rows = _with_store(data, lambda db: listed(db, wanted, limit))
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table("Mail", "When", "Kind", "To", "State", "Tries", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["id"], row["created_at"], row["kind"], row["to"] or row["user_id"], _state(row), str(row["attempts"]))
    out.print(table)


@mails.command()
def show(mail: MailArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show all that is known of one mail, with what the server said last."""
    from rich.table import Table

    from conman.cli import out
    from conman.services.mail_reports import found

    row = _with_store(data, lambda db: found(db, mail))
    if as_json:
        out.print_json(json.dumps(row))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in row.items():
        table.add_row(name, _words(value))
    out.print(table)


@mails.command()
def retry(mail: MailArgument, data: DataOption = None) -> None:
    """Have a mail that failed tried again for a day, once what kept it is mended.

    One that was sent, or is not to be sent, stays as it is: exit 1.
    """
    from conman.cli import fail, joined, out, run
    from conman.domain.errors import DomainError
    from conman.services.mail_reports import try_again
    from conman.services.platform import make_platform

    settings = joined(data)

    async def work() -> None:
        platform = await make_platform(settings)
        try:
            await try_again(platform.db, platform.commands, mail)
        finally:
            await platform.close()

    try:
        run(work)
    except DomainError as error:
        raise fail(error.message) from error
    out.print(f"{mail} is tried again: `conman mails show {mail}` says how it goes", highlight=False, soft_wrap=True)


def _state(row: dict[str, Any]) -> str:
    code = (row["refusal"] or {}).get("code")
    why = " ".join(str(part) for part in (row["reason"], code) if part)
    return f"{row['state']} ({why})" if why else row["state"]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items() if part not in (None, ""))
    return "" if value is None else str(value)


def _with_store(data: Path | None, work: Callable[[Database], Awaitable[ResultT]]) -> ResultT:
    """Do the work on the database that the settings name; an exit with one line for what is not there or not allowed."""
    from conman.cli import fail, joined, run
    from conman.config import SettingsError
    from conman.domain.errors import DomainError
    from conman.store.database import connect

    settings = joined(data)

    async def working() -> ResultT:
        if settings.mongo_uri is None:
            raise SettingsError("CONMAN_MONGO_URI: give it, or join a running `conman up` with --data DIR")
        client = connect(settings.mongo_uri)
        try:
            return await work(client[settings.mongo_database])
        finally:
            await client.close()

    try:
        return run(working)
    except DomainError as error:
        raise fail(error.message) from error
