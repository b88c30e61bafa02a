"""The database of a temp env: filled as its profile says, and dropped (`spec.md` 13).

docs/adr/0030-how-a-database-is-cloned.md
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from conman.config import Settings
from conman.domain.temp_env import temp_database
from conman.faults import fault_point
from conman.services import clone_files, temp_profiles
from conman.services.clock import now
from conman.services.clone_copy import Copy, Tell
from conman.services.clone_database import CloneDatabase, Filled, installation_id, is_conmans_own, problem_of
from conman.services.clone_source import plans_of, size_of
from conman.services.mongo_connections import CloneError, Connection
from conman.services.secrets import SecretStore
from conman.services.temp_profiles import OwnDatabase
from conman.store.database import Document

log = structlog.get_logger(__name__)

_MEBIBYTE = 1024 * 1024
_SERVERS_OWN: Final = frozenset({"admin", "config", "local"})
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


async def provision(
    store: SecretStore, settings: Settings, temp_env_id: str, profile: Document, claim: str, tell: Tell
) -> tuple[str, Filled] | None:
    """Fill the database of a temp env and return its name; None where its profile has none. What is whole stays as it is.

    `claim` is the attempt: a former one that is still at it stops. Raises `CloneError`, and `VaultError` for a connection that
    can't be read.
    """
    own = await temp_profiles.own_database(store, profile)
    if own is None:
        return None
    name = temp_database(temp_env_id)
    async with opened(store, own.connection, name, claim) as clone:
        filled = await clone.take(temp_env_id, now())
        if filled is None:
            filled = await _fill(settings, temp_env_id, own, clone, tell)
            fault_point("clone.filled")
            await clone.finish(filled)
    await forget_dump(settings, temp_env_id)
    return name, filled


@asynccontextmanager
async def opened(store: SecretStore, connection: Connection, name: str, claim: str = "") -> AsyncIterator[CloneDatabase]:
    """A clone on its server. What the library says of a failure is told without its words."""
    clone = CloneDatabase(connection, name, await installation_id(store.db), claim)
    try:
        yield clone
    except PyMongoError as error:
        raise problem_of(error, f"{name} on {connection.where} was asked for") from None
    finally:
        await clone.close()


async def _fill(settings: Settings, temp_env_id: str, own: OwnDatabase, clone: CloneDatabase, tell: Tell) -> Filled:
    match own.mode:
        case "empty":
            return Filled("empty", 0, 0)
        case "snapshot_restore":
            folder = snapshot_folder(settings, own.snapshot)
            return await clone_files.restore(folder, clone, batch=settings.temp_database_batch, tell=tell)
        case _:
            if own.source is None:
                raise CloneError(f"The profile says {own.mode}, and names no database to clone: mend it and make a new temp env.")
            return await _clone(settings, temp_env_id, own.source, clone, tell)


async def _clone(settings: Settings, temp_env_id: str, source: Connection, clone: CloneDatabase, tell: Tell) -> Filled:
    if source.database is None:
        raise CloneError("The base's connection names no database: put one into its path, as in mongodb://host:27017/shop.")
    same_server = source.servers == clone.connection.servers
    client = source.client()
    try:
        base = client[source.database]
        try:
            await _refuse_what_is_no_apps(base)
            size = await size_of(base)
            plans = await plans_of(base)
        except PyMongoError as error:
            raise problem_of(error, f"the base {source.database} on {source.where} was looked at") from None
        if size > settings.temp_database_max_mb * _MEBIBYTE:
            raise CloneError(
                f"The base has {size // _MEBIBYTE} MiB, and CONMAN_TEMP_DATABASE_MAX_MB lets"
                f" {settings.temp_database_max_mb} be copied: choose a smaller base profile, or ask the operator."
            )
        if same_server and not (await clone.mark() or {}).get("by_files"):
            try:
                return await Copy(base, clone, batch=settings.temp_database_batch, same_server=True, tell=tell).run(plans)
            except CloneError as error:
                if not error.refused:
                    raise
                log.info("copied_by_files", clone=clone.name, problem=error.message)
        # From here on for good: what a restore has begun bears its name before it is whole, as nothing does that is copied.
        await clone.note(by_files=True)
        await clone.drop_unfinished()
        return await _by_files(settings, temp_env_id, base, clone, tell)
    finally:
        await client.close()


async def _refuse_what_is_no_apps(base: AsyncDatabase[Document]) -> None:
    """A member writes the connection of a base, and may reach from the worker what the member's own machine does not: Conman's
    database, by whatever name of its server, and those in which the server keeps its accounts and everybody's writes. A clone
    would take them to a server of the member's choice. Raises `CloneError` and `PyMongoError`.
    """
    if base.name in _SERVERS_OWN or await is_conmans_own(base):
        raise CloneError(f"The base {base.name!r} is no app's database, and is not cloned: choose another base profile.")


async def _by_files(
    settings: Settings, temp_env_id: str, base: AsyncDatabase[Document], clone: CloneDatabase, tell: Tell
) -> Filled:
    folder, batch = settings.temp_dumps_folder / temp_env_id, settings.temp_database_batch
    await clone_files.dump(base, folder, batch=batch, tell=tell, still_mine=clone.still_mine)
    try:
        return await clone_files.restore(folder, clone, batch=batch, tell=tell)
    except CloneError as error:
        # What was written while it was dumped may not go together, as two documents with one value of a unique index.
        if error.refused:
            await forget_dump(settings, temp_env_id)
        raise


def snapshot_folder(settings: Settings, name: str | None) -> Path:
    """The operator's dump of this name. Raises `CloneError` when there is none."""
    if name is None:
        raise CloneError("The profile says snapshot_restore, and its data_strategy names no seed_source_ref: name a dump.")
    if settings.temp_snapshots is None:
        raise CloneError("The operator has configured no dumps: set CONMAN_TEMP_SNAPSHOTS, or choose another provisioning_mode.")
    folder = settings.temp_snapshots / name
    if _SNAPSHOT.fullmatch(name) is None or not folder.is_dir():
        raise CloneError(f"There is no dump {name!r} below CONMAN_TEMP_SNAPSHOTS: name one of those that are there.")
    return folder


async def drop(store: SecretStore, profile: Document, temp_env_id: str) -> None:
    """Drop the database of a temp env, if it has one. Raises `CloneError`, and `VaultError` for an unreadable connection."""
    own = await temp_profiles.own_database(store, profile)
    if own is None:
        return
    async with opened(store, own.connection, temp_database(temp_env_id)) as clone:
        await clone.drop()


# -- Dumps on this machine


async def forget_dump(settings: Settings, temp_env_id: str) -> bool:
    """Delete what was dumped for a temp env on this machine. False where it can't be, and a later look for orphans has to."""
    try:
        await asyncio.to_thread(shutil.rmtree, settings.temp_dumps_folder / temp_env_id)
    except FileNotFoundError:
        return True
    except OSError as error:
        log.warning("dump_not_removed", temp_env_id=temp_env_id, problem=error.strerror or type(error).__name__)
        return False
    return True


def dumped_here(settings: Settings) -> list[str]:
    """The temp envs of which this machine keeps a dump."""
    folder = settings.temp_dumps_folder
    return sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
