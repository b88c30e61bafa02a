"""An app with two environments and their profiles, and changesets whose overrides are set, as the services see them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from conman.config import Settings
from conman.domain.app import AppSettings
from conman.domain.changeset import Changeset
from conman.domain.decision import Actor
from conman.domain.environment import EnvironmentDefinition
from conman.domain.overrides import FrozenOverride, GivenOverride, frozen_of
from conman.domain.profile_edit import NewProfile, ProfileEdit
from conman.git.adapter import GitAdapter
from conman.services import overrides, profile_changes
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.override_contents import contents_of
from conman.services.platform import Platform
from conman.services.secrets import unseal
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store.database import Document, connect, ensure_indexes
from conman.store.outgoing import sweep
from tests.support.notice_board import NoticeBoard

ANN: Document = {"_id": new_id(), "name": "Ann", "email": "ann@example.com"}


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


@dataclass
class Desk:
    """An app with the environments QA and Live, and changesets of Ann's."""

    platform: Platform
    keyring: str
    app: Document
    profiles: dict[str, str]
    environments: dict[str, str]

    def call(self, key: str | None = None) -> Call:
        command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
        at = "2026-01-31T09:30:00.000Z" if key is not None else now()
        return Call(command_id=command, at=at, actor=Actor(user_id=ANN["_id"]), user=ANN, keyed=key is not None)

    async def keyed(self, key: str) -> Call:
        """A request with an `Idempotency-Key`, remembered as the API does."""
        call = self.call(key)
        await self.platform.db["idempotency"].update_one({"_id": call.command_id}, {"$setOnInsert": {"at": call.at}}, upsert=True)
        return call

    async def changeset(self, state: str = "draft") -> str:
        made = new_id()
        owned = Changeset(app_id=self.app["_id"], author_user_id=ANN["_id"], workspace_id=new_id())
        document: Document = {"_id": made, "app_id": self.app["_id"], "version": 1, "title": "t", "created_at": now()}
        document["owned"] = {**owned.model_dump(mode="json"), "state": state}
        await self.platform.db["changesets"].insert_one(document)
        return made

    async def read(self, changeset: str) -> Document:
        found = await self.platform.db["changesets"].find_one({"_id": changeset})
        assert found is not None
        return found

    async def put(self, changeset: str, *given: dict[str, Any], call: Call | None = None, version: int | None = None) -> Document:
        wanted = [GivenOverride.model_validate({"target_environment_id": self.environments["QA"], **one}) for one in given]
        document = await self.read(changeset)
        return await overrides.set_overrides(self.platform, call or self.call(), self.app, document, wanted, version)

    async def frozen(self, changeset: str) -> list[FrozenOverride]:
        return frozen_of((await self.read(changeset)).get("overrides", []))

    async def audit(self, changeset: str) -> list[Document]:
        await sweep(self.platform.db)
        return await self.platform.db["audit"].find({"entity_id": changeset}).sort("_id", 1).to_list()

    async def value(self, changeset: str, key: str) -> str:
        """A secret of the only override."""
        (frozen,) = await self.frozen(changeset)
        (content,) = await contents_of(self.platform.db, [frozen])
        ref = content.secrets[key]
        assert ref is not None
        return (await unseal(self.platform, frozen.profile_id, {key: ref}))[key]

    async def edit(self, name: str, **fields: Any) -> None:
        """A PATCH of an environment's profile."""
        profile = await self.platform.db["profiles"].find_one({"_id": self.profiles[name]})
        assert profile is not None
        change = ProfileEdit.model_validate(fields)
        await profile_changes.edit(self.platform, self.call(), self.app, profile["_id"], change, profile["version"])


@pytest.fixture
async def desk(mongo_uri: str, tmp_path: Path) -> AsyncIterator[Desk]:
    client, name, keyring = connect(mongo_uri), f"test_{uuid.uuid4().hex[:12]}", generate_keyring()
    platform = Platform(
        settings=Settings(data=tmp_path),
        db=client[name],
        git=cast("GitAdapter", None),
        commands=NoticeBoard().commands,
        keyring=Vault.of(keyring),
    )
    await ensure_indexes(platform.db)
    app: Document = {"_id": new_id(), "name": "shop", "repo_path": "shop.git", "environments": [], "environment_ids": []}
    app |= {"settings": AppSettings().model_dump(mode="json"), "version": 1}
    await platform.db["apps"].insert_one(app)
    made = Desk(platform, keyring, app, {}, {})
    for position, environment in enumerate(("QA", "Live")):
        new = NewProfile.model_validate({"name": environment, "env_vars": {"MODE": text("old")}, "secrets": {"PIN": "12345678"}})
        profile = await profile_changes.create(platform, made.call(), app, new)
        listed = EnvironmentDefinition(id=new_id(), name=environment, runtime_profile_id=profile["_id"])
        made.profiles[environment], made.environments[environment] = profile["_id"], listed.id
        record: Document = {
            "_id": listed.id,
            "app_id": app["_id"],
            "archived": False,
            "owned": {"fence": 0},
            "position": position,
        }
        await platform.db["environments"].insert_one(record)
        app["environments"].append(listed.document())
        app["environment_ids"].append(listed.id)
    app["settings"]["canonical_env_id"] = made.environments["Live"]
    await platform.db["apps"].replace_one({"_id": app["_id"]}, app)
    yield made
    await client.drop_database(name)
    await client.close()
