"""The one MongoDB client of a process, and the indexes that are part of correctness.

PyMongo's own async client is used (docs/adr/0002-pymongo-async.md). Each index stands here with its name and its reason; failing
to make one stops the start, since the unique ones hold rules that no check can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, AsyncMongoClient, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, PyMongoError

from conman.store.upgrade import bring_up_to_date

Document = dict[str, Any]
Database = AsyncDatabase[Document]


DUPLICATE_KEY = 11000
"""MongoDB's code for a key that is there already."""


def only_duplicates(error: BulkWriteError) -> list[Document]:
    """The writes that a bulk write refused, each with its `index`, where nothing was wrong but that their keys are there already.

    Raises the error for all else: another refusal, or a write that too few servers have confirmed.
    """
    told = error.details or {}
    refused = told.get("writeErrors", [])
    if not refused or told.get("writeConcernErrors") or any(one["code"] != DUPLICATE_KEY for one in refused):
        raise error
    return refused


class StoreError(Exception):
    """MongoDB can't be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index with its reason. `sparse` ones hold only documents that have the (first) field."""

    collection: str
    keys: tuple[str, ...]
    why: str
    unique: bool = False
    sparse: bool = False

    @property
    def name(self) -> str:
        """The index's name in MongoDB."""
        return "_".join(self.keys).replace(".", "_")

    @property
    def model(self) -> IndexModel:
        """What PyMongo makes it from."""
        return IndexModel([(key, ASCENDING) for key in self.keys], name=self.name, unique=self.unique, sparse=self.sparse)


INDEXES: tuple[Index, ...] = (
    Index("users", ("email",), "one account per email", unique=True),
    Index("revoked_sessions", ("expires_at",), "upkeep removes what has ended by itself"),
    Index("failed_logins", ("forget_at",), "upkeep removes what counts no more"),
    Index("password_resets", ("token_hash",), "a token is looked up by its hash", unique=True, sparse=True),
    Index("password_resets", ("asked.email",), "upkeep carries out what was asked for", sparse=True),
    Index("password_resets", ("user_id",), "a new password voids all tokens of its account"),
    Index("password_resets", ("expires_at",), "upkeep removes what is long over"),
    Index("rate_windows", ("ends_at",), "upkeep removes windows that are over"),
    Index("apps", ("name",), "app names are unique", unique=True),
    Index("apps", ("repo_path",), "one app per repository", unique=True),
    Index("apps", ("member_change.user_id",), "readers of somebody's memberships finish what is under way", sparse=True),
    Index("apps", ("lost_votes.id",), "upkeep goes on taking back votes", sparse=True),
    Index("users", ("lost_votes.id",), "upkeep goes on taking back votes", sparse=True),
    Index("memberships", ("member_slot",), "one membership per user and app", unique=True, sparse=True),
    Index("memberships", ("app_id",), "listing by app"),
    Index("memberships", ("user_id",), "apps of the caller"),
    Index("invites", ("pending_slot",), "one pending invite per app and email", unique=True, sparse=True),
    Index("invites", ("token_hash",), "an invite is found by its token", unique=True, sparse=True),
    Index("invites", ("app_id",), "listing by app"),
    Index("invites", ("joining.user_id",), "upkeep finishes acceptances that were cut short", sparse=True),
    Index("workspaces", ("app_id", "branch_name"), "two workspaces never share a branch", unique=True),
    Index("workspaces", ("default_slot",), "one default workspace per user and app", unique=True, sparse=True),
    Index("changesets", ("open_slot",), "one open changeset per workspace", unique=True, sparse=True),
    Index("changesets", ("app_id",), "listing by app"),
    Index("comments", ("changeset_id", "_id"), "a changeset's comments, oldest first"),
    Index("comment_revisions", ("comment_id", "revision_number"), "each body of a comment is kept once", unique=True),
    Index("releases", ("app_id",), "listing by app"),
    Index("release_tags", ("app_id", "tag"), "a tag's number is given once per app and day", unique=True),
    Index("release_tags", ("app_id", "day", "number"), "the last number of an app's day"),
    Index("release_tags", ("release_id",), "a release has one tag, also when its request is repeated", unique=True),
    Index("environments", ("app_id",), "listing by app"),
    Index("profiles", ("app_id",), "listing by app"),
    Index("profile_revisions", ("profile_id",), "a profile's history"),
    Index("data_keys", ("profile_id", "number"), "a profile's keys are ordered, and the newest one seals", unique=True),
    Index("profiles", ("rotation.data_key_id",), "upkeep finishes what a crash left of a rotation", sparse=True),
    Index("secret_values", ("profile_id", "data_key_id"), "a rotation finds what the old key sealed"),
    Index("deployments", ("app_id",), "listing by app"),
    Index("deployments", ("release_id",), "a release's state is computed from its deployments"),
    Index(
        "deployments",
        ("owned.rollback.replaced_release_id",),
        "what a release has lost by returns to an earlier one",
        sparse=True,
    ),
    Index("deployments", ("owned.environment_id",), "listing by environment"),
    Index("deployments", ("owned.group_id",), "a yes or a cancel is told to the whole group"),
    Index("deployments", ("supersedes_untold",), "upkeep tells those whose lock was taken over", sparse=True),
    Index("migration_executions", ("environment_id",), "what ran in an environment"),
    Index("migration_executions", ("deployment_id", "name"), "one deployment runs a migration once", unique=True),
    Index("temp_envs", ("live_slot",), "one live temp env per workspace or changeset", unique=True, sparse=True),
    Index(
        "temp_envs", ("label",), "a label is given once; requests to its host find their temp env by it", unique=True, sparse=True
    ),
    Index("temp_envs", ("app_id",), "listing by app"),
    Index("temp_env_links", ("expires_at",), "upkeep removes links that are over"),
    Index("jobs", ("app_id",), "listing by app"),
    Index("jobs", ("entity_id",), "a changeset's timeline"),
    Index("jobs", ("cancel_asked_at",), "upkeep stops jobs that are to end", sparse=True),
    Index("jobs", ("job_type", "state"), "upkeep starts the drift checks that have no process"),
    Index("job_logs", ("job_id", "attempt", "first_seq"), "a chunk of a log is written once", unique=True),
    Index("suite_results", ("forget_at",), "upkeep removes results that are too old to be reused"),
    Index("audit", ("app_id", "_id"), "an app's events in the order of their ids, a span of time or from the last one seen"),
    Index("audit", ("entity_id", "_id"), "what happened to a record, a changeset's timeline"),
    Index("audit_seals", ("chain", "seq"), "two events never share a place in their chain", unique=True),
    Index("idempotency", ("at",), "upkeep removes the keys that have had their time"),
    Index("idempotency", ("command",), "saves that became history are noted at their keys"),
    Index("notifications", ("state",), "upkeep starts what is pending and has no workflow"),
    Index("feed", ("event_id",), "an event stands in its app's feed once", unique=True),
    Index("feed", ("told_at",), "upkeep removes what is too old to be told again", sparse=True),
    Index("mails", ("notice_id", "recipient"), "one mail per event and recipient", unique=True),
    Index("apps", ("settings.webhook.url",), "each process reads again and again which apps have webhooks", sparse=True),
    Index("apps", ("webhook_changed_at",), "upkeep makes the deliveries that processes missed", sparse=True),
    Index("webhook_deliveries", ("open",), "what is still to be delivered to an app's webhook", sparse=True),
    Index("webhook_deliveries", ("app_id",), "listing by app"),
    Index("webhook_deliveries", ("forget_at",), "upkeep removes what ended long ago", sparse=True),
    *(
        Index(collection, ("outgoing.id",), "the sweep finds what a crash left undelivered", sparse=True)
        for collection in (
            "apps",
            "workspaces",
            "changesets",
            "queues",
            "releases",
            "deployments",
            "jobs",
            "users",
            "revoked_sessions",
            "failed_logins",
            "invites",
            "profiles",
            "master_rotations",
            "comments",
            "environments",
            "locks",
            "audit_chains",
            "temp_envs",
        )
    ),
)

WITH_OUTGOING = tuple(index.collection for index in INDEXES if index.keys == ("outgoing.id",))
"""Collections whose documents carry `outgoing` entries."""


def connect(uri: str) -> AsyncMongoClient[Document]:
    """A client that gives up on an unreachable server after 5 s and retries a failed write once."""
    return AsyncMongoClient(uri, serverSelectionTimeoutMS=5000, connectTimeoutMS=5000, appname="conman", tz_aware=True)


async def ensure_indexes(db: Database) -> None:
    """Make all indexes, after what an earlier version left is brought into their form.

    One command per collection, since every process asks for all of them when it starts. Raises `StoreError` naming the indexes of
    the collection beside the server's own words, which say what is in the way.
    """
    await bring_up_to_date(db)
    for collection in dict.fromkeys(index.collection for index in INDEXES):
        indexes = [index for index in INDEXES if index.collection == collection]
        try:
            await db[collection].create_indexes([index.model for index in indexes])
        except PyMongoError as error:
            rules = ", ".join(f"{index.name} ({index.why})" for index in indexes)
            raise StoreError(f"an index of {collection} could not be made: {error}; its indexes are {rules}") from error
