"""`conman doctor`: the configuration and every component, each with what to mend."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from pymongo.errors import PyMongoError

from conman.config import Settings, SettingsError
from conman.domain.ids import first_id_of
from conman.domain.times import later, milliseconds
from conman.git.adapter import GitAdapter, GitError
from conman.mail.transport import NotSentError
from conman.services.clock import now
from conman.services.master_keys import check_master_keys
from conman.services.platform import Platform, make_git, make_platform
from conman.services.sealing import UNSEALED
from conman.services.sending import make_transport
from conman.store.database_role import audit_protection
from conman.workflows.sealing import SEALING_ID

SEALED_WITHIN = timedelta(minutes=5)
"""How long an event may wait for its seal before something is wrong: it takes half a minute."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    component: str
    ok: bool
    message: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _folder(name: str, path: Path) -> Finding:
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        return Finding(name, ok=False, message=f"{path} can't be written: change its owner or CONMAN_DATA")
    free = shutil.disk_usage(parent).free // (1024 * 1024)
    if free < 500:
        return Finding(name, ok=False, message=f"only {free} MiB are free at {parent}: make room")
    return Finding(name, ok=True, message=f"{path} ({free} MiB free)")


def _suite(settings: Settings) -> Finding:
    program = settings.msuite_command[0] if settings.msuite_command else ""
    if program == "conman" or (program and shutil.which(program)):
        return Finding("msuite", ok=True, message=" ".join(settings.msuite_command))
    return Finding("msuite", ok=False, message=f"{program or 'nothing'} is no program on PATH: mend CONMAN_MSUITE_COMMAND")


def _commands(settings: Settings) -> Finding:
    """Whether this machine can run the suites, migrations, targets and health commands that apps may choose by name; it matters
    where a worker runs. `conman` is this program."""
    named = settings.commands_file.programs if settings.commands_file is not None else {}
    shown = {name: f"{name} ({program.kind.value})" for name, program in sorted(named.items())}
    programs = {name: program.argv[0] for name, program in named.items()}
    missing = [text for name, text in shown.items() if programs[name] != "conman" and shutil.which(programs[name]) is None]
    if missing:
        message = f"{', '.join(missing)}: no program here that can be run: mend CONMAN_COMMANDS_FILE, or the program's mode"
        return Finding("commands", ok=False, message=message)
    return Finding("commands", ok=True, message=", ".join(shown.values()) or "only those that are built in")


async def _git(git: GitAdapter) -> Finding:
    try:
        health = await git.health()
    except GitError as error:
        return Finding("git", ok=False, message=f"{error}: start it or mend CONMAN_GIT_BACKEND and what belongs to it")
    details = ", ".join(f"{name}: {value}" for name, value in health.details.items())
    return Finding("git", ok=True, message=f"{health.backend}, mode {health.mode} ({details})")


async def _master_keys(platform: Platform) -> Finding:
    try:
        await check_master_keys(platform)
    except SettingsError as error:
        return Finding("master keys", ok=False, message=str(error))
    except PyMongoError:
        return Finding("master keys", ok=False, message="can't be checked while MongoDB does not answer")
    return Finding("master keys", ok=True, message=f"{', '.join(platform.vault.master_key_ids)} (the first is primary)")


async def _audit(platform: Platform) -> Finding:
    """Whether the database's user could change what was written; a hint, since development needs no users."""
    try:
        protected, message = await audit_protection(platform.db)
    except PyMongoError:
        return Finding("audit", ok=True, message="can't be checked while MongoDB does not answer")
    return Finding("audit", ok=True, message=message if protected else f"caution: {message} (docs/mongodb-roles.md)")


async def _seals(platform: Platform) -> Finding:
    """Whether events of the audit wait too long for their seals."""
    old = first_id_of(milliseconds(later(now(), -SEALED_WITHIN)))
    try:
        waiting = await platform.db[UNSEALED].count_documents({"_id": {"$lt": old}})
    except PyMongoError:
        return Finding("audit seals", ok=True, message="can't be checked while MongoDB does not answer")
    if waiting:
        message = f"{waiting} events wait for their seals: start a worker, and look for the schedule {SEALING_ID} in the Web UI"
        return Finding("audit seals", ok=False, message=message)
    return Finding("audit seals", ok=True, message="no event waits for its seal; `conman audit verify` checks them")


def _codec(settings: Settings) -> Finding:
    key_ids = list(settings.codec_keyring)
    if not key_ids:
        return Finding("codec", ok=True, message="off: Temporal keeps plain payloads")
    if not settings.codec_encrypt:
        return Finding("codec", ok=True, message=f"{', '.join(key_ids)} only decrypt: CONMAN_CODEC_ENCRYPT is off")
    others = f"; decrypting too: {', '.join(key_ids[1:])}" if len(key_ids) > 1 else ""
    return Finding("codec", ok=True, message=f"{key_ids[0]} encrypts{others}")


async def _mail(settings: Settings) -> Finding:
    """Whether the SMTP server answers, or the outbox can be written; nothing is sent."""
    try:
        return Finding("mail", ok=True, message=await make_transport(settings).probe())
    except NotSentError as error:
        said = f" ({error.refusal.text})" if error.refusal.text else ""
        return Finding("mail", ok=False, message=f"{error}{said}: mend CONMAN_SMTP_*, or the folder CONMAN_DATA")


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed."""
    from conman.api.routes.health import components

    findings = [_folder("data", settings.data.resolve()), _suite(settings), _commands(settings), _codec(settings)]
    findings.append(await _mail(settings))
    if settings.secret is None:
        findings.append(Finding("secret", ok=False, message="CONMAN_SECRET is missing: give at least 32 bytes"))
    else:
        findings.append(Finding("secret", ok=True, message="is set"))
    if settings.mongo_uri is None or settings.temporal_address is None:
        message = "no `conman up` runs on this data folder, and CONMAN_MONGO_URI or CONMAN_TEMPORAL_ADDRESS is missing: start one"
        return [*findings, Finding("servers", ok=False, message=message)]
    try:
        platform = await make_platform(settings)
    except SettingsError as error:
        return [*findings, Finding("settings", ok=False, message=str(error))]
    except Exception as error:  # noqa: BLE001 - whatever keeps it from connecting is the finding
        message = f"Temporal at {settings.temporal_address} does not answer: start it or mend CONMAN_TEMPORAL_ADDRESS"
        findings.append(Finding("temporal", ok=False, message=f"{message} ({str(error).splitlines()[0][:120]})"))
        return [*findings, await _git(make_git(settings))]
    try:
        for name, state in (await components(platform)).items():
            if name == "git":
                findings.append(await _git(platform.git))
                continue
            message = state.get("message", "answers")
            findings.append(Finding(name, ok=state["status"] == "ok", message=message))
        findings.append(await _master_keys(platform))
        findings.append(await _audit(platform))
        findings.append(await _seals(platform))
    finally:
        await platform.close()
    return findings
