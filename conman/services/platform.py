"""What every use case stands on: settings, database, Git, and the way to workflows. Made once per process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pygit2
from pygit2.enums import Option

from conman.config import Settings, SettingsError
from conman.git.adapter import GitAdapter
from conman.git.local import LocalGit
from conman.services.vault import Vault
from conman.services.webhook_relay import WebhookRelay
from conman.settings.git import GitBackend
from conman.store import webhook_feed
from conman.store.database import Database, connect
from conman.workflows.client import Commands, check_codec
from conman.workflows.client import connect as connect_temporal
from conman.workflows.codec import CodecError, KeyringCodec
from conman.workflows.options import set_queue_prefix

if TYPE_CHECKING:
    from conman.git.gitaly import GitalyGit


@dataclass(slots=True)
class Platform:
    """The components of one process."""

    settings: Settings
    db: Database
    git: GitAdapter
    commands: Commands
    keyring: Vault | None = None
    webhooks: WebhookRelay | None = None

    @property
    def vault(self) -> Vault:
        """The master keys of secrets. Raises `SettingsError` when there are none."""
        if self.keyring is None:
            raise SettingsError(
                "CONMAN_MASTER_KEYS: is missing; give id:base64 with 32 bytes (openssl rand -base64 32), or join a running"
                " `conman up` with --data"
            )
        return self.keyring

    @property
    def secret(self) -> str:
        """The signing key. Raises `SettingsError` when there is none."""
        if self.settings.secret is None:
            raise SettingsError("CONMAN_SECRET: is missing; give at least 32 bytes, or join a running `conman up` with --data")
        return self.settings.secret.get_secret_value()

    async def close(self) -> None:
        """Close what this process opened."""
        if self.webhooks is not None:
            webhook_feed.hear_of_new(self.db, None)
            await self.webhooks.close()
        await self.db.client.close()
        if isinstance(self.git, LocalGit):
            self.git.close()
            return
        from conman.git.gitaly import GitalyGit

        if isinstance(self.git, GitalyGit):
            await self.git.close()


def make_git(settings: Settings) -> GitAdapter:
    """The Git backend that the settings name. Raises `SettingsError` when it lacks what it needs."""
    match settings.git_backend:
        case GitBackend.LOCAL:
            settings.repositories_folder.mkdir(parents=True, exist_ok=True)
            return LocalGit(settings.repositories_folder, settings.git_threads)
        case GitBackend.GITALY:
            return _gitaly(settings)


def _gitaly(settings: Settings) -> GitalyGit:
    # An eighth of what a process computes before it is ready, for nothing where repositories are local.
    from conman.git.gitaly import CacheOptions, GitalyGit
    from conman.git.gitaly_channel import GitalyOptions

    if settings.gitaly_address is None:
        raise SettingsError("CONMAN_GITALY_ADDRESS: is missing; the backend `gitaly` needs it")
    if settings.gitaly_ca_file is not None and not settings.gitaly_ca_file.is_file():
        raise SettingsError(f"CONMAN_GITALY_CA_FILE: there is no file {settings.gitaly_ca_file}")
    # What this process writes to its disk is a cache of the server's repositories, which nothing needs to flush.
    pygit2.option(Option.ENABLE_FSYNC_GITDIR, False)
    options = GitalyOptions(
        address=settings.gitaly_address,
        storage=settings.gitaly_storage,
        token=None if settings.gitaly_token is None else settings.gitaly_token.get_secret_value(),
        auth=settings.gitaly_auth,
        ca_file=settings.gitaly_ca_file,
        short_seconds=settings.gitaly_short_seconds,
        long_seconds=settings.gitaly_long_seconds,
        write_seconds=settings.gitaly_write_seconds,
        transfer_seconds=settings.gitaly_transfer_seconds,
        attempts=settings.gitaly_attempts,
        concurrency=settings.gitaly_concurrency,
        max_message_bytes=settings.gitaly_max_message_bytes,
    )
    cache = CacheOptions(settings.mirrors_folder, settings.mirrors_max_mb * 1024 * 1024, settings.git_threads)
    return GitalyGit(options, settings.gitaly_mode, cache)


async def make_platform(settings: Settings) -> Platform:
    """Connect to everything. Raises `SettingsError` for a missing address, else the component's own error."""
    if settings.mongo_uri is None or settings.temporal_address is None:
        raise SettingsError(
            "CONMAN_MONGO_URI and CONMAN_TEMPORAL_ADDRESS: give both, or join a running `conman up` with --data DIR"
        )
    set_queue_prefix(settings.task_queue_prefix)
    codec = KeyringCodec(settings.codec_keyring, encrypt=settings.codec_encrypt)
    client = await connect_temporal(settings.temporal_address, settings.temporal_namespace, codec)
    try:
        await check_codec(client, codec)
    except CodecError as error:
        raise SettingsError(
            f"CONMAN_CODEC_KEYS: others write to this Temporal namespace what can't be read here: {error}"
        ) from error
    db = connect(settings.mongo_uri)[settings.mongo_database]
    keys = settings.master_keys
    commands = Commands(client, timeout_seconds=settings.command_timeout_seconds)
    webhooks = WebhookRelay(commands)
    webhook_feed.hear_of_new(db, webhooks.tell)
    return Platform(
        settings=settings,
        db=db,
        git=make_git(settings),
        commands=commands,
        keyring=None if keys is None else Vault.of(keys.get_secret_value()),
        webhooks=webhooks,
    )
