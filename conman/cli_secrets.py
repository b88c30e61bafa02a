"""`conman secrets`: whether everything decrypts, and a change of the master key (`spec.md` 6 and 15)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:  # Every `conman` imports this module: what its commands need comes with them.
    from conman.services.master_keys import Progress, Undecryptable
    from conman.services.master_rotation import MasterRotation
    from conman.services.secrets import Secrets

secrets = typer.Typer(help="The encrypted secrets of runtime profiles.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of all local state; joins a running `conman up` there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

ResultT = TypeVar("ResultT")


@secrets.command()
def verify(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Decrypt every data key and every value, and list what does not. Exit 0 when all do, 1 else."""
    from conman.cli import out
    from conman.services.master_keys import verify as verify_everything

    found = _with_secrets(data, "decrypting", verify_everything)
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
    else:
        _list_problems(found.problems)
        good = f"{found.data_keys} data keys and {found.values} values were looked at, {len(found.problems)} do not decrypt"
        left = f"; {found.unfinished} more belong to requests that never ended" if found.unfinished else ""
        out.print(good + left, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if found.problems else 0)


@secrets.command("rotate-master")
def rotate_master(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Wrap every data key under the primary master key, and say which older keys may leave the keyring.

    Put the new key first in CONMAN_MASTER_KEYS and keep the old ones after it,
    restart every API and worker with that, then run this. It may be stopped and
    run again at any time, while people work. Exit 1 when a data key stays.
    """
    from conman.cli import out
    from conman.services.call import system_call
    from conman.services.master_rotation import rotate_master as rewrap_everything
    from conman.store.database import ensure_indexes

    async def rewrap(store: Secrets, progress: Progress) -> MasterRotation:
        await ensure_indexes(store.db)
        return await rewrap_everything(store, system_call("command-line"), progress)

    done = _with_secrets(data, "wrapping anew", rewrap)
    if as_json:
        out.print_json(json.dumps(done.as_dict()))
    else:
        _list_problems(done.problems)
        out.print(f"{done.rewrapped} data keys were wrapped anew under {done.master_key_id}", highlight=False, soft_wrap=True)
        if done.may_leave:
            text = f"may leave CONMAN_MASTER_KEYS: {', '.join(done.may_leave)} (backups made before now still need them)"
            out.print(text, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if done.problems else 0)


def _list_problems(problems: list[Undecryptable]) -> None:
    from conman.cli import err

    for problem in problems:
        what = f"value {problem.id} of the secret {problem.key}" if problem.kind == "value" else f"data key {problem.id}"
        err.print(f"[red]does not decrypt:[/red] {what}, profile {problem.profile_id}", highlight=False, soft_wrap=True)


def _with_secrets(data: Path | None, verb: str, work: Callable[[Secrets, Progress], Awaitable[ResultT]]) -> ResultT:
    """Do the work on the store that the settings name, with a bar on stderr; an exit with one line when they lack something."""
    from rich.progress import Progress as Bar

    from conman.cli import err, joined, run
    from conman.config import SettingsError
    from conman.services.secrets import Secrets
    from conman.services.vault import Vault
    from conman.store.database import connect

    settings = joined(data)

    async def working() -> ResultT:
        if settings.mongo_uri is None:
            raise SettingsError("CONMAN_MONGO_URI: give it, or join a running `conman up` with --data DIR")
        if settings.master_keys is None:
            raise SettingsError("CONMAN_MASTER_KEYS: give it, or join a running `conman up` with --data DIR")
        vault = Vault.of(settings.master_keys.get_secret_value())
        client = connect(settings.mongo_uri)
        try:
            with Bar(console=err, transient=True) as bar:
                task = bar.add_task(verb, total=None)
                return await work(
                    Secrets(client[settings.mongo_database], vault),
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
        finally:
            await client.close()

    return run(working)
