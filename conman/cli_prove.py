"""`conman prove`: one file that proves a release, and its check without any server (`spec.md` 14 and 15)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conman.cli_audit import USAGE_ERROR, AppOption, DataOption, JsonOption, find_apps, with_stores

if TYPE_CHECKING:  # Every `conman` imports this module: what its command needs comes with it.
    from conman.git.adapter import GitAdapter
    from conman.services.audit_verify import Progress
    from conman.store.database import Database, Document


def prove(
    tag: Annotated[str | None, typer.Argument(help="The release's tag, such as r2026.01.31.1.")] = None,
    app: AppOption = None,
    to_file: Annotated[
        Path | None, typer.Option("--out", help="The file to write (0600), - for standard output; else TAG.proof.json here.")
    ] = None,
    check: Annotated[Path | None, typer.Option("--check", help="Check a proof's file; needs no server.")] = None,
    repository: Annotated[Path | None, typer.Option("--repository", help="With --check: a clone to compare it with.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the proof of a release to one file, or check such a file.

    It has the release with its commits, its changesets with their votes, what the
    gates said, and the audit's events with the chain that leads to the commit by
    which the app's repository vouches for them.

    Exit 0 when it is written, or nothing contradicts it; 1 when it can't be
    written, or something does; 2 for a wrong call.
    """
    from conman.cli import fail

    if check is not None:
        if tag is not None or to_file is not None:
            raise fail("--check takes the file alone, and --repository", USAGE_ERROR)
        _check(check, repository, as_json=as_json)
        return
    if tag is None or repository is not None:
        raise fail("give a tag, or --check FILE", USAGE_ERROR)
    _write(tag, app, to_file, data)


def _check(path: Path, repository: Path | None, *, as_json: bool) -> None:
    from conman.cli import err, fail, out
    from conman.domain.proof import check
    from conman.services.proof import compare_with

    try:
        content = path.read_bytes()
    except OSError as error:
        raise fail(f"{path} can't be read: {error.strerror}", USAGE_ERROR) from error
    found = check(content)
    if found.ok and repository is not None:
        compare_with(repository, json.loads(content), found)
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
    else:
        for mark, lines in (("[green]proved:[/green] ", found.proved if found.ok else []), ("not proved: ", found.trusted)):
            for line in lines:
                out.print(mark, end="")
                out.print(line, highlight=False, soft_wrap=True, markup=False)
        for line in found.problems:
            err.print("[red]contradicted:[/red] ", end="")
            err.print(line, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(0 if found.ok else 1)


async def _app_of(db: Database, tag: str, app: str | None) -> Document:
    from conman.cli import fail

    apps = await find_apps(db, app)
    if app is None:
        tagged = {row["app_id"] async for row in db["releases"].find({"owned.tag": tag}, {"app_id": 1})}
        apps = [one for one in apps if one["_id"] in tagged]
        if not apps:
            raise fail(f"no app has a release {tag}")
        if len(apps) > 1:
            raise fail(f"several apps have a release {tag}: give --app ({', '.join(one['name'] for one in apps)})", USAGE_ERROR)
    return apps[0]


def _write(tag: str, app: str | None, to_file: Path | None, data: Path | None) -> None:
    from conman.cli import err, fail
    from conman.domain.proof import check, written
    from conman.git.adapter import GitError
    from conman.services.audit_anchor import AnchorUnreadable
    from conman.services.proof import NotProvable
    from conman.services.proof import prove as make_proof

    async def work(db: Database, git: GitAdapter, _progress: Progress) -> bytes:
        return written(await make_proof(db, git, await _app_of(db, tag, app), tag))

    try:
        content = with_stores(data, "proving", work)
    except (NotProvable, GitError, AnchorUnreadable) as error:
        raise fail(str(error)) from error
    problems = check(content).problems
    if problems:
        raise fail(f"what is recorded does not hold together, no proof is written: {' '.join(problems)}")
    if to_file == Path("-"):
        sys.stdout.buffer.write(content)
        return
    to_file = to_file or Path(f"{tag.replace('/', '-')}.proof.json")
    try:
        to_file.touch(mode=0o600, exist_ok=False)
        to_file.write_bytes(content)
    except OSError as error:
        raise fail(f"{to_file} can't be written: {error.strerror}", USAGE_ERROR) from error
    err.print(f"{to_file}: {len(content)} bytes", highlight=False, markup=False)
