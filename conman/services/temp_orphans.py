"""What temp envs have left behind, and what they have lost (`spec.md` 13).

`temp_orphans` {_id: `kind:name`, kind, name, app_id, first_seen_at, seen_at, problem?}: what the last round found that nothing
needs. It is removed by the first round that still finds it an hour after it was first seen: whatever is being made has its record
by then. The record is the truth: one that waits, is provisioned or lives needs all that bears its id or label, and one that is
over until its own clean-up has ended.

A server may serve several installations of Conman. A database goes only if its own mark says that it is this one's, or if it
bears no mark and its name is that of a deleted temp env of this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog
from pymongo.errors import ConnectionFailure, PyMongoError

from conman.config import Settings
from conman.domain.app import BRANCHES
from conman.domain.clone import CLONE_PREFIX, temp_env_of_database
from conman.domain.errors import ConmanError
from conman.domain.profile import Profile
from conman.domain.temp_env import SERVED, TempEnv, TempEnvState, temp_branch
from conman.domain.times import later
from conman.git.adapter import GitAdapter, GitError
from conman.services import temp_branches, temp_databases, temp_profiles
from conman.services.clone_database import installation_id
from conman.services.mongo_connections import CloneError, Connection, connection_of
from conman.services.secrets import SecretStore, unseal
from conman.services.temp_env_use import COLLECTION
from conman.store.database import Database, Document

log = structlog.get_logger(__name__)

ORPHANS: Final = "temp_orphans"
KEPT_FOR: Final = timedelta(hours=1)
"""How long an orphan stays after it was first seen."""


@dataclass(frozen=True, slots=True)
class _Orphan:
    """Something that nothing needs; `remove` removes it."""

    kind: str
    name: str
    app_id: str | None
    remove: Callable[[], Awaitable[Any]] | None


class _Round:
    """One look at everything."""

    def __init__(self, store: SecretStore, git: GitAdapter, settings: Settings, at: str) -> None:
        self.store = store
        self.db: Database = store.db
        self.git = git
        self.settings = settings
        self.at = at
        self.counts = {"seen": 0, "removed": 0, "recreated": 0, "missing": 0, "failed": 0}

    async def run(self) -> dict[str, int]:
        for look in (self._branches, self._profiles, self._dumps, self._databases):
            async for orphan in look():
                await self._settle(orphan)
        await self.db[ORPHANS].delete_many({"seen_at": {"$ne": self.at}})
        return self.counts

    async def _settle(self, orphan: _Orphan) -> None:
        """Note it; remove it when it was noted long enough ago."""
        noted_id = f"{orphan.kind}:{orphan.name}"
        fields = {"kind": orphan.kind, "name": orphan.name, "app_id": orphan.app_id, "seen_at": self.at}
        await self.db[ORPHANS].update_one(
            {"_id": noted_id}, {"$set": fields, "$setOnInsert": {"first_seen_at": self.at}}, upsert=True
        )
        noted = await self.db[ORPHANS].find_one({"_id": noted_id})
        self.counts["seen"] += 1
        if orphan.remove is None or noted is None or later(noted["first_seen_at"], KEPT_FOR) > self.at:
            return
        try:
            removed = await orphan.remove()
        except (CloneError, ConmanError, GitError) as error:
            self.counts["failed"] += 1
            problem = getattr(error, "message", str(error))
            await self.db[ORPHANS].update_one({"_id": noted_id}, {"$set": {"problem": problem}})
            log.warning("orphan_not_removed", kind=orphan.kind, name=orphan.name, problem=problem)
            return
        if removed is False:
            return
        self.counts["removed"] += 1
        await self.db[ORPHANS].delete_one({"_id": noted_id})
        log.warning("orphan_removed", kind=orphan.kind, name=orphan.name, app_id=orphan.app_id)

    # -- Who needs what

    async def _needed(self, query: Document) -> bool:
        """Whether there is a temp env that still needs what bears its id or label."""
        over = {"owned.state": {"$ne": TempEnvState.DELETED.value}, "owned": {"$exists": True}}
        return await self.db[COLLECTION].find_one({**query, **over}, {"_id": 1}) is not None

    async def _served(self, app_id: str) -> AsyncIterator[tuple[str, TempEnv]]:
        states = [state.value for state in SERVED]
        async for row in self.db[COLLECTION].find({"app_id": app_id, "owned.state": {"$in": states}}):
            yield row["_id"], TempEnv.model_validate(row["owned"])

    # -- Branches

    async def _branches(self) -> AsyncIterator[_Orphan]:
        """Snapshot branches without a temp env; and those that a temp env has lost are put back from its private ref."""
        async for app in self.db["apps"].find({}, {"repo_path": 1}):
            repo: str = app["repo_path"]
            try:
                there = await self.git.list_refs(repo, BRANCHES + temp_branch(""))
                async for temp_env_id, temp in self._served(app["_id"]):
                    if BRANCHES + temp.branch not in there:
                        await self._put_back(app["_id"], repo, temp_env_id, temp)
            except GitError as error:
                self.counts["failed"] += 1
                log.warning("branches_not_looked_at", app_id=app["_id"], problem=str(error))
                continue
            for ref in there:
                branch = ref.removeprefix(BRANCHES)
                if not await self._needed({"app_id": app["_id"], "owned.branch": branch}):
                    remove = self._branch_remover(repo, branch)
                    yield _Orphan("branch", f"{repo}:{branch}", app["_id"], remove)

    def _branch_remover(self, repo: str, branch: str) -> Callable[[], Awaitable[Any]]:
        return lambda: temp_branches.delete_branch(self.git, repo, branch)

    async def _put_back(self, app_id: str, repo: str, temp_env_id: str, temp: TempEnv) -> None:
        await temp_branches.put_in_place(self.git, repo, temp_env_id, temp)
        self.counts["recreated"] += 1
        log.warning("temp_branch_put_back", app_id=app_id, temp_env_id=temp_env_id, branch=temp.branch)

    # -- Profiles

    async def _profiles(self) -> AsyncIterator[_Orphan]:
        query = {"temp.temp_env_id": {"$exists": True}, "deleted": {"$ne": True}}
        async for profile in self.db[temp_profiles.PROFILES].find(query):
            if not await self._needed({"_id": profile["temp"]["temp_env_id"]}):
                yield _Orphan("profile", profile["_id"], profile["app_id"], self._profile_remover(profile))

    def _profile_remover(self, profile: Document) -> Callable[[], Awaitable[Any]]:
        return lambda: temp_profiles.delete(self.db, profile)

    # -- Dumps on this machine

    async def _dumps(self) -> AsyncIterator[_Orphan]:
        for temp_env_id in temp_databases.dumped_here(self.settings):
            if not await _is_being_made(self.db, temp_env_id):
                yield _Orphan("dump", temp_env_id, None, self._dump_remover(temp_env_id))

    def _dump_remover(self, temp_env_id: str) -> Callable[[], Awaitable[Any]]:
        return lambda: temp_databases.forget_dump(self.settings, temp_env_id)

    # -- Databases

    async def _databases(self) -> AsyncIterator[_Orphan]:
        mine = await installation_id(self.db)
        there = await self._there()
        for servers, names in there.items():
            for name, seen_by in sorted(names.items()):
                able = await self._able(seen_by, name, mine)
                if able:
                    orphan_name = f"{', '.join(sorted(servers))}/{name}"
                    yield _Orphan("database", orphan_name, None, self._database_remover(able, name))
        await self._tell_missing(there)

    async def _there(self) -> dict[frozenset[str], dict[str, list[Connection]]]:
        """On each server that answers the clones, each with who sees it: an account is shown what it may use."""
        there: dict[frozenset[str], dict[str, list[Connection]]] = {}
        away: set[frozenset[str]] = set()
        for connection in await self._connections():
            if connection.servers in away:
                continue
            try:
                names = await _clones_on(connection)
            except (CloneError, PyMongoError) as error:
                self.counts["failed"] += 1
                log.warning("server_not_looked_at", server=connection.where, problem=type(error).__name__)
                if isinstance(error, ConnectionFailure):
                    away.add(connection.servers)
                continue
            for name in names:
                there.setdefault(connection.servers, {}).setdefault(name, []).append(connection)
            there.setdefault(connection.servers, {})
        return there

    async def _able(self, seen_by: list[Connection], name: str, mine: str) -> list[Connection]:
        """Which of those who see a clone can tell that it is an orphan of this installation."""
        temp_env_id = temp_env_of_database(name)
        if temp_env_id is None or await self._needed({"_id": temp_env_id}):
            return []
        able: list[Connection] = []
        for connection in seen_by:
            try:
                async with temp_databases.opened(self.store, connection, name) as clone:
                    mark = await clone.mark()
            except CloneError:
                continue
            is_mine = (
                await self.db[COLLECTION].find_one({"_id": temp_env_id}, {"_id": 1}) is not None
                if mark is None
                else mark.get("installation") == mine
            )
            if is_mine:
                able.append(connection)
        return able

    def _database_remover(self, able: list[Connection], name: str) -> Callable[[], Awaitable[Any]]:
        async def remove() -> None:
            """By the first account that may."""
            refusal: CloneError | None = None
            for connection in able:
                try:
                    async with temp_databases.opened(self.store, connection, name) as clone:
                        await clone.drop()
                except CloneError as error:
                    if not error.refused:
                        raise
                    refusal = error
                else:
                    return
            if refusal is not None:
                raise refusal

        return remove

    async def _connections(self) -> list[Connection]:
        """A connection for each account on each server that the operator or a profile names, those that clones are made with
        first.
        """
        found: dict[str, Connection] = {}
        query = {"content.database": {"$ne": None}, "deleted": {"$ne": True}}
        sources: list[Callable[[], Awaitable[Connection | None]]] = [self._operators]
        derived: list[Document] = []
        others: list[Document] = []
        async for document in self.db[temp_profiles.PROFILES].find(query):
            (derived if document.get("temp") else others).append(document)
        sources += [partial(self._connection_of, document) for document in derived + others]
        for source in sources:
            try:
                connection = await source()
            except (CloneError, ConmanError) as error:
                if isinstance(error, ConmanError) or error.again:
                    self.counts["failed"] += 1
                    log.warning("connection_not_looked_at", problem=error.message)
                continue  # Else no temp env can have been made from it, and none can be.
            if connection is not None:
                found.setdefault(connection.to(CLONE_PREFIX).uri, connection)
        return list(found.values())

    async def _operators(self) -> Connection | None:
        uri = self.settings.temp_database_uri
        if uri is None:
            return None
        return await connection_of(uri.get_secret_value(), "CONMAN_TEMP_DATABASE_URI", trusted=True)

    async def _connection_of(self, document: Document) -> Connection | None:
        """Of a derived profile the one that it was made with: members may write another one into it since."""
        if document.get("temp"):
            own = await temp_profiles.own_database(self.store, document)
            return None if own is None else own.connection
        profile = Profile.model_validate(document["content"])
        ref = profile.secrets.get(profile.database.connection_ref) if profile.database is not None else None
        if profile.database is None or ref is None:
            return None
        key = profile.database.connection_ref
        value = (await unseal(self.store, document["_id"], {key: ref}))[key]
        return await connection_of(value, f"the secret {key}", allowed=self.settings.temp_database_server_patterns)

    async def _tell_missing(self, there: Mapping[frozenset[str], Collection[str]]) -> None:
        """Tell of temp envs whose database is gone: nothing can put it back, its maker makes the temp env again."""
        states = [state.value for state in SERVED]
        async for row in self.db[COLLECTION].find({"owned.state": {"$in": states}, "owned.db_name": {"$ne": None}}):
            temp = TempEnv.model_validate(row["owned"])
            profile = await self.db[temp_profiles.PROFILES].find_one({"_id": temp.runtime_profile_id})
            if profile is None or "temp" not in profile:
                continue
            try:
                own = await temp_profiles.own_database(self.store, profile)
            except (CloneError, ConmanError):
                continue  # It can't be told whether it is there.
            names = there.get(own.connection.servers) if own is not None else None
            if names is not None and temp.db_name not in names:
                self.counts["missing"] += 1
                await self._settle(_Orphan("missing_database", f"{row['_id']}:{temp.db_name}", row["app_id"], None))
                log.error("temp_database_missing", app_id=row["app_id"], temp_env_id=row["_id"], database=temp.db_name)


async def _clones_on(connection: Connection) -> set[str]:
    """The databases on a server whose names temp envs have. Raises `PyMongoError`."""
    client = connection.client()
    try:
        wanted = {"listDatabases": 1, "nameOnly": True, "filter": {"name": {"$regex": f"^{CLONE_PREFIX}"}}}
        names = [row["name"] for row in (await client.admin.command(wanted))["databases"]]
    finally:
        await client.close()
    return {name for name in names if temp_env_of_database(name) is not None}


async def _is_being_made(db: Database, temp_env_id: str) -> bool:
    provisioning = {"_id": temp_env_id, "owned.state": TempEnvState.PROVISIONING.value}
    return await db[COLLECTION].find_one(provisioning, {"_id": 1}) is not None


async def forget_dumps(db: Database, settings: Settings) -> None:
    """Delete the dumps on this machine whose temp env is known and no longer provisioned: a round sees one machine only."""
    for temp_env_id in temp_databases.dumped_here(settings):
        known = await db[COLLECTION].find_one({"_id": temp_env_id}, {"_id": 1}) is not None
        if not known or await _is_being_made(db, temp_env_id):
            continue
        if await temp_databases.forget_dump(settings, temp_env_id):
            log.info("dump_forgotten", temp_env_id=temp_env_id)


async def sweep(store: SecretStore, git: GitAdapter, settings: Settings, at: str) -> dict[str, int]:
    """One round: remove what nothing needs, put back what can be, and tell of what can't; returns how much of each there was."""
    return await _Round(store, git, settings, at).run()
