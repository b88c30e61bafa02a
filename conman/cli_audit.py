"""`conman audit`: whether the audit is what was sealed, and the audit as JSON lines (`spec.md` 14 and 15)."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:  # Every `conman` imports this module: what its commands need comes with them.
    from conman.git.adapter import GitAdapter
    from conman.services.audit_verify import Progress, Verification
    from conman.store.database import Database, Document

audit = typer.Typer(help="The audit: is it what was written, and a copy of it.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of all local state; joins a running `conman up` there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
AppOption = Annotated[str | None, typer.Option("--app", help="The app, by name or id.")]
PlatformOption = Annotated[bool, typer.Option("--platform", help="The events that belong to no app.")]

NOT_SOUND = 1
USAGE_ERROR = 2
NOT_COMPARED = 3

ResultT = TypeVar("ResultT")


@audit.command()
def verify(
    app: AppOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All apps, and the events that belong to none; the default.")] = False,
    platform: PlatformOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute the hash chains and compare them with their anchors in the repositories.

    Exit 0: every sealed event is there, unchanged, in its place. 1: one is not;
    each is listed. 2: the call is wrong. 3: nothing is wrong in the database, and
    a repository could not be read to compare it.
    """
    from conman.cli import err, out

    _check_scope(app, platform=platform, everything=everything)

    async def work(db: Database, git: GitAdapter, progress: Progress) -> list[tuple[str, Verification | str]]:
        from conman.git.adapter import GitError
        from conman.services.audit_verify import verify_app, verify_platform

        found: list[tuple[str, Verification | str]] = []
        for one in [] if platform else await find_apps(db, app):
            try:
                found.append((one["name"], await verify_app(db, git, one, progress)))
            except GitError as error:
                found.append((one["name"], str(error)))
        if app is None:
            found.append(("(no app)", await verify_platform(db, git, progress)))
        return found

    results = with_stores(data, "verifying", work)
    sound = all(isinstance(one, str) or one.ok for _, one in results)
    unread = any(isinstance(one, str) or one.unread for _, one in results)
    if as_json:
        told = [{"name": name, **_told(one)} for name, one in results]
        out.print_json(json.dumps({"ok": sound and not unread, "chains": told}))
    else:
        for name, one in results:
            if isinstance(one, str):
                err.print(f"[red]not compared:[/red] {name}: {one}", highlight=False, soft_wrap=True)
                continue
            for why in one.unread:
                err.print(f"[red]not compared:[/red] {why}", highlight=False, soft_wrap=True)
            for problem in one.problems:
                what = f"event {problem.event_id or 'of unknown id'} at {problem.seq}"
                err.print(f"[red]{problem.kind.value}:[/red] {name}: {what}. {problem.detail}", highlight=False, soft_wrap=True)
            state = "whole" if one.ok else f"{len(one.problems)} problems"
            anchored = f", anchored to {one.anchor.seq}" if one.anchor else ", not anchored"
            text = f"{name}: {one.checked} events looked at, sealed to {one.sealed_to}{anchored}: {state}"
            out.print(text, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(NOT_SOUND if not sound else NOT_COMPARED if unread else 0)


def _told(found: Verification | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"ok": False, "not_compared": [found]}
    return {**found.as_dict(), "not_compared": list(found.unread)}


@audit.command()
def export(
    app: AppOption = None,
    platform: PlatformOption = False,
    earliest: Annotated[str | None, typer.Option("--from", help="RFC 3339; events at that time or later.")] = None,
    latest: Annotated[str | None, typer.Option("--to", help="RFC 3339; events at that time or earlier.")] = None,
    entity_type: Annotated[str | None, typer.Option("--entity-type", help="Such as changeset.")] = None,
    entity_id: Annotated[str | None, typer.Option("--entity-id", help="Id of the record that was changed.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Such as submitted.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Id of who did it.")] = None,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last event that you have.")] = None,
    to_file: Annotated[Path | None, typer.Option("--out", help="The file to write (0600); else standard output.")] = None,
    go_on: Annotated[bool, typer.Option("--resume", help="Go on behind the last whole line of the file.")] = False,
    data: DataOption = None,
) -> None:
    """Write events as JSON lines, oldest first, masked as they are kept, with their seals.

    Without --app and --platform: all. An export that was cut short goes on with
    --resume. Exit 0 when all is written, 1 when it can't be, 2 for a wrong call.
    """
    from conman.cli import err, fail

    _check_scope(app, platform=platform, everything=False)
    if go_on and to_file is None:
        raise fail("--resume needs --out", USAGE_ERROR)
    if to_file is not None and to_file.exists() and not go_on:
        raise fail(f"{to_file} is there already: give another name, or --resume", USAGE_ERROR)

    async def work(db: Database, _git: GitAdapter, progress: Progress) -> int:
        from conman.services.audit_export import lines, query_of, resume

        start = after
        if to_file is not None and to_file.exists():
            start = resume(to_file) or after
        apps = await find_apps(db, app) if app is not None else []
        equal: Document = {"entity_type": entity_type, "entity_id": entity_id, "action": action, "actor_user_id": actor}
        query = query_of(
            app_id=apps[0]["_id"] if apps else None,
            everything=app is None and not platform,
            earliest=earliest,
            latest=latest,
            after=start,
            equal=equal,
        )
        count = 0
        if to_file is not None:
            to_file.touch(mode=0o600)
        with nullcontext(sys.stdout.buffer) if to_file is None else to_file.open("ab") as file:
            async for line in lines(db, query, lambda done: progress(done, done)):
                file.write(line)
                count += 1
        return count

    try:
        count = with_stores(data, "writing", work)
    except ValueError as error:
        raise fail(str(error), USAGE_ERROR) from error
    except OSError as error:
        raise fail(f"the export can't be written: {error}") from error
    err.print(f"{count} events", highlight=False)


def _check_scope(app: str | None, *, platform: bool, everything: bool) -> None:
    from conman.cli import fail

    if sum((app is not None, platform, everything)) > 1:
        raise fail("give one of --app, --platform and --all", USAGE_ERROR)


async def find_apps(db: Database, wanted: str | None) -> list[Document]:
    """All apps, or the one of that name or id."""
    from conman.cli import fail

    query: Document = {"ready": {"$ne": False}} if wanted is None else {"$or": [{"name": wanted}, {"_id": wanted}]}
    found = await db["apps"].find(query, {"name": 1, "repo_path": 1, "settings": 1}).sort("_id", 1).to_list()
    if wanted is not None and not found:
        raise fail(f"there is no app {wanted!r}", USAGE_ERROR)
    return found


def with_stores(data: Path | None, verb: str, work: Callable[[Database, GitAdapter, Progress], Awaitable[ResultT]]) -> ResultT:
    """Do the work on the database and the repositories that the settings name, with a bar on stderr."""
    from rich.progress import Progress as Bar

    from conman.cli import err, joined, run
    from conman.config import SettingsError
    from conman.git.gitaly import GitalyGit
    from conman.git.local import LocalGit
    from conman.services.platform import make_git
    from conman.store.database import connect

    settings = joined(data)

    async def working() -> ResultT:
        if settings.mongo_uri is None:
            raise SettingsError("CONMAN_MONGO_URI: give it, or join a running `conman up` with --data DIR")
        client, git = connect(settings.mongo_uri), make_git(settings)
        try:
            with Bar(console=err, transient=True) as bar:
                task = bar.add_task(verb, total=None)
                return await work(
                    client[settings.mongo_database], git, lambda done, total: bar.update(task, completed=done, total=total)
                )
        finally:
            await client.close()
            if isinstance(git, LocalGit):
                git.close()
            elif isinstance(git, GitalyGit):
                await git.close()

    return run(working)
