"""The targets by name, and what the processes of deployments ask of them (`spec.md` 12).

To add a target in code, give it its name in `Targets.target`, and in `program_names` of `conman.settings.programs`, which says
what an environment may choose.
"""

from __future__ import annotations

from typing import Any

from conman.config import Settings
from conman.domain.environment import DIRECTORY_TARGET, EnvironmentDefinition
from conman.domain.errors import DomainError
from conman.domain.in_place import in_place
from conman.domain.jobs import ReasonCode
from conman.domain.messages import SwitchRequest
from conman.domain.redaction import SHORTEST_SECRET_LINE, Redactor
from conman.domain.target import WITHHELD, Health, Observation, Place
from conman.git.adapter import GitAdapter
from conman.services.rendering import RenderedProfile, render
from conman.services.secrets import Secrets
from conman.services.vault import Vault, VaultError
from conman.settings.programs import ProgramKind
from conman.store import locks, records
from conman.store.database import Database, Document
from conman.targets.base import DeployOrder, ObserveOrder, Placed, Target, TargetError, Tell
from conman.targets.command import CommandTarget
from conman.targets.directory import DirectoryTarget
from conman.targets.health import run_health_command


class Targets:
    """Bound to the settings, the records, the Git backend and the master keys. Every question raises `TargetError`."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.settings = settings
        self.db = db
        self.git = git
        self.secrets = Secrets(db, vault)
        self.scratch = (settings.data / "scratch").resolve()

    def target(self, name: str) -> Target:
        """The built-in one, or the operator's program of this name as this worker knows it."""
        if name == DIRECTORY_TARGET:
            return DirectoryTarget(self.settings.environments_folder, self.git, keep=self.settings.directory_keep)
        program = self.settings.program(ProgramKind.TARGET, name)
        if program is None:
            raise unknown_program("target", name)
        return CommandTarget(name, program, self.settings, self.git, self.scratch)

    async def order(self, request: SwitchRequest, tell: Tell) -> DeployOrder:
        """What a target needs to know to deploy, with the secrets in it. Raises `TargetError` when it can't be rendered."""
        app = await records.get(self.db, "apps", request.app_id, what="app")
        deployment = await records.find(self.db, "deployments", request.deployment_id)

        async def still_holds() -> None:
            fence = await locks.current_fence(self.db, request.app_id, request.environment_id)
            if fence > request.fence:
                later = f"A later deployment (fence {fence}) holds this environment"
                raise TargetError(f"{later}; this one (fence {request.fence}) changes nothing.", fenced=True)

        return DeployOrder(
            place=place_of(app, definition_of(app, request.environment_id)),
            deployment_id=request.deployment_id,
            release_id=request.release_id,
            job_id=deployment["owned"]["job_id"] if deployment is not None else request.deployment_id,
            tag=request.tag,
            commit_sha=request.commit_sha,
            fence=request.fence,
            repo_path=app["repo_path"],
            rendered=await self._rendered(app, request.profile_id, request.profile_revision_id),
            still_holds=still_holds,
            tell=tell,
        )

    async def deploy(self, order: DeployOrder) -> Placed:
        """Put it in place."""
        return await self.target(order.place.target).deploy(order)

    async def health(self, order: DeployOrder) -> Health:
        """Whether the target finds it well, and then the environment's health command; the message holds no secret."""
        found = await self.target(order.place.target).health(order)
        app = await records.get(self.db, "apps", order.place.app_id, what="app")
        name = definition_of(app, order.place.environment_id).health_command
        if found.healthy and name is not None:
            program = self.settings.program(ProgramKind.HEALTH, name)
            if program is None:
                raise unknown_program("health command", name)
            found = await run_health_command(self.settings, name, program, order, self.shown_at(order), self.scratch)
        redactor = Redactor(tuple(order.rendered.secrets.values()))
        return found.model_copy(update={"message": redactor.scrub_text(found.message)})

    def shown_at(self, order: DeployOrder) -> str | None:
        """The folder of this machine in which the environment's files are to be seen; None for a target that has none."""
        if order.place.target != DIRECTORY_TARGET:
            return None
        return str(self.settings.environments_folder / order.place.app_id / order.place.environment_id / "current")

    async def observe(self, place: Place, digest_key: bytes) -> Observation:
        """What is there now; secrets as `secret_digest(digest_key, value)`, other texts that hold one as `WITHHELD`.

        `digest_key` is made for this question and forgotten after it.
        """
        app = await records.get(self.db, "apps", place.app_id, what="app")
        environment = await records.get(self.db, "environments", place.environment_id, what="environment")
        there = in_place(environment["owned"])
        release_id, revision_id = (there.release_id, there.revision_id) if there is not None else (None, None)
        release = await records.find(self.db, "releases", release_id) if release_id is not None else None
        applied = await self._rendered(app, None, revision_id) if revision_id is not None else None
        order = ObserveOrder(
            place=place,
            fence=await locks.current_fence(self.db, place.app_id, place.environment_id),
            digest_key=digest_key,
            repo_path=app["repo_path"],
            deployment_id=there.deployment_id if there is not None else None,
            commit_sha=release["owned"]["published_sha"] if release is not None else None,
            applied=applied,
        )
        return _without_secrets(await self.target(place.target).observe(order), applied)

    async def _rendered(self, app: Document, profile_id: str | None, revision_id: str | None) -> RenderedProfile:
        try:
            return await render(self.secrets, app, profile_id, revision_id)
        except VaultError as error:
            raise TargetError(f"The profile can't be rendered: {error.message}.", again=True) from error
        except DomainError as error:
            raise TargetError(f"The profile can't be rendered: {error.message}") from error


def definition_of(app: Document, environment_id: str) -> EnvironmentDefinition:
    """The environment as the app's list defines it now. Raises `TargetError` for one that has left the list."""
    listed = next((one for one in app["environments"] if one["id"] == environment_id), None)
    if listed is None:
        raise TargetError("The environment is no longer one of the app's.", reason=ReasonCode.RUNNER_ERROR)
    return EnvironmentDefinition.model_validate(listed)


def unknown_program(what: str, name: str) -> TargetError:
    """This worker's operator has no program of this name; another worker's may have."""
    mend = "its operator adds it to CONMAN_COMMANDS_FILE, or an app admin chooses another one"
    return TargetError(f"This worker knows no {what} {name!r}: {mend}.", reason=ReasonCode.RUNNER_ERROR)


def place_of(app: Document, definition: EnvironmentDefinition) -> Place:
    """Which environment an order is about, as the app's list has it now."""
    return Place(
        app_id=app["_id"],
        app=app["name"],
        environment_id=definition.id,
        environment=definition.name,
        target=definition.deploy_target,
    )


def _without_secrets(seen: Observation, applied: RenderedProfile | None) -> Observation:
    """Texts that hold the value of a secret are withheld, except what the profile itself says openly.

    Values of fewer than `SHORTEST_SECRET_LINE` bytes are not looked for: they stand in other texts by chance.
    """
    if applied is None:
        return seen
    redactor = Redactor([value for value in applied.secrets.values() if len(value.encode()) >= SHORTEST_SECRET_LINE])
    open_texts = {*applied.variables.values(), applied.profile.base_url}

    def clean(value: Any) -> Any:
        if not isinstance(value, str) or value in open_texts or redactor.scrub_text(value) == value:
            return value
        return WITHHELD

    def each(values: dict[str, Any] | None) -> dict[str, Any] | None:
        return {clean(key): clean(value) for key, value in values.items()} if values is not None else None

    return seen.model_copy(
        update={
            "env_vars": each(seen.env_vars),
            "secrets": {clean(key): value for key, value in seen.secrets.items()} if seen.secrets is not None else None,
            "base_url": clean(seen.base_url),
            "database": each(seen.database),
            "migrations": [clean(name) for name in seen.migrations] if seen.migrations is not None else None,
            "changed_paths": [clean(path) for path in seen.changed_paths],
        }
    )
