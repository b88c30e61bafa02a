"""Apps: settings, environments and the rules over them (`spec.md` 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import count
from typing import Literal

from pydantic import Field

from conman.domain.decision import Model
from conman.domain.errors import invalid
from conman.domain.secrets import SecretRef
from conman.domain.typed_value import TypedValue

DEFAULT_BLOCKED_PATHS = [".git/**", ".gitignore", ".github/**"]
DEFAULT_ENVIRONMENTS = ("Development", "QA", "UAT", "Production")
CANONICAL_DEFAULT = "Production"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$"
"""What an app may be called; branches and host names are made of it."""
DEFAULT_FILE_SIZE_LIMIT = 5 * 1024 * 1024
LARGEST_FILE_SIZE_LIMIT = 52_428_800
LONGEST_SUITE_SECONDS = 86_400
"""The longest time that an app may give one suite, seconds."""


class CommitMode(StrEnum):
    """What a submit does with what was saved since the last one (`spec.md` 7)."""

    SUBMIT_COMMIT = "submit_commit"
    MANUAL_CHECKPOINT = "manual_checkpoint"


class BaselineMode(StrEnum):
    """What a new workspace starts from (`spec.md` 1)."""

    CANONICAL_ENV_RELEASE = "canonical_env_release"
    INTEGRATION_HEAD = "integration_head"


PROFILE_SCOPES: Mapping[str, tuple[str, ...]] = {"submit": ("base",), "release": ("affected", "all"), "deploy": ("target",)}
"""Gate → with which profiles its suite may run (`spec.md` 9), the default first.

`affected`: the canonical environment's, and those that the release overrides; `all`: every environment's.
"""


def _is_none(value: object) -> bool:
    return value is None


class ValidationGate(Model):
    """The suite that runs at one gate: a command by its name in the operator's configuration, never a program.

    Without `timeout_seconds` the default of the gate's type of job holds (`spec.md` 9). `reuse`: the suite need not run where it
    passed on the same input already (domain/suite_result.py); it is shown where it is off.
    """

    command: str = "msuite"
    profile_scope: Literal["base", "affected", "all", "target"] | None = None
    timeout_seconds: int | None = Field(default=None, ge=1, le=LONGEST_SUITE_SECONDS)
    reuse: bool = Field(default=True, exclude_if=bool)


class Webhook(Model):
    """Where an app's events are told to. The secrets that sign them are kept encrypted, as those of profiles are.

    `previous` is the secret before this one; it signs too until `previous_until`.
    """

    url: str
    events: list[str]
    secret: SecretRef | None = None
    previous: SecretRef | None = Field(default=None, exclude_if=_is_none)
    previous_until: str | None = Field(default=None, exclude_if=_is_none)


def _gates() -> dict[str, ValidationGate]:
    return {scope: ValidationGate.model_validate({"profile_scope": profiles[0]}) for scope, profiles in PROFILE_SCOPES.items()}


class AppSettings(Model):
    """The settings of an app, with the defaults of a new one."""

    baseline_mode: BaselineMode = BaselineMode.CANONICAL_ENV_RELEASE
    canonical_env_id: str | None = None
    commit_mode_default: CommitMode = CommitMode.SUBMIT_COMMIT
    blocked_paths: list[str] = Field(default_factory=lambda: list(DEFAULT_BLOCKED_PATHS))
    file_size_limit_bytes: int = Field(default=DEFAULT_FILE_SIZE_LIMIT, ge=1, le=LARGEST_FILE_SIZE_LIMIT)
    required_approval_count: int = Field(default=1, ge=1, le=50)
    runtime_profile_approval_policy: Literal["stricter_two_approvals", "same_as_changeset"] = "stricter_two_approvals"
    queue_gate: Literal["up_to_date", "clean_merge"] = "up_to_date"
    carry_votes: Literal["never", "identical_patch"] = "never"
    webhook: Webhook | None = None
    temp_url_domain: str | None = None
    temp_env_access: Literal["members", "public"] = "members"
    default_base_profile_id: str | None = None
    env_defaults: dict[str, TypedValue] = Field(default_factory=dict[str, TypedValue])
    validation_gates: dict[str, ValidationGate] = Field(default_factory=_gates)
    review_reminder_hours: int = Field(default=48, ge=0, le=8760)
    approval_ttl_hours: int = Field(default=24, ge=1, le=8760)
    revalidation_concurrency: int = Field(default=4, ge=1, le=64)


def slug(text: str) -> str:
    """Lower-cased, other characters than letters and digits as `-`; never empty (`spec.md` 7, branch names)."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def workspace_branch(email: str, app_name: str, suffix: int = 0) -> str:
    """`ws/<user>/<app>`, with a number where that is taken."""
    base = f"ws/{slug(email.partition('@')[0])}/{slug(app_name)}"
    return f"{base}-{suffix}" if suffix else base


_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")


def check_branch_name(name: str) -> str:
    """A branch name that a user may choose: Git's rules, and nothing of Conman's own. Raises `validation_error`."""
    bad_part = any(part in ("", ".", "..") or part.endswith((".lock", ".")) or part.startswith(".") for part in name.split("/"))
    if not _BRANCH.fullmatch(name) or bad_part or ".." in name:
        raise invalid("branch_name", "use letters, digits, '.', '_', '-' and '/' only, as Git allows")
    if name.lower().startswith(("conman/", "refs/")) or name.lower() in ("conman", "head"):
        raise invalid("branch_name", "names under conman/ are Conman's own; choose another")
    return name


def free_branch(wanted: str, taken: Iterable[str]) -> str:
    """The first name like `wanted` that Git can hold beside the branches `taken` (`spec.md` 7: a clash gets a suffix).

    Git keeps a branch as a file in the folders of its name: beside `a` there is no `a/b`, and beside `a/b` no `a`. So a number is
    put to the segment that clashes, which need not be the last one.
    """
    present = frozenset(taken)
    folders = {name[:end] for name in present for end in _slashes(name)}
    made = ""
    segments = wanted.split("/")
    for place, segment in enumerate(segments):
        blocked = present | folders if place == len(segments) - 1 else present
        made = next(name for name in _numbered(made + segment) if name not in blocked) + "/"
    return made.removesuffix("/")


def _slashes(name: str) -> list[int]:
    return [place for place, character in enumerate(name) if character == "/"]


def _numbered(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(1))


def in_the_way(name: str, taken: Iterable[str]) -> str | None:
    """The first of the branches `taken` beside which Git can't hold `name`: itself, one above it, or one below it."""
    return next((one for one in sorted(taken) if one == name or one.startswith(f"{name}/") or name.startswith(f"{one}/")), None)


_REPO_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def check_repo_path(path: str) -> str:
    """A repository path below the operator's repositories folder. Raises `validation_error`."""
    segments = path.split("/")
    if len(path) > 400 or not all(_REPO_SEGMENT.fullmatch(segment) for segment in segments):
        raise invalid("repo_path", "give a relative path like team/config.git, without '..' or special characters")
    return path


BRANCHES = "refs/heads/"


def pending_ref(workspace_id: str) -> str:
    """The private branch that keeps a workspace's pending edits (`spec.md` 7)."""
    return f"refs/heads/conman/pending/{workspace_id}"


def revision_ref(changeset_id: str, head_sha: str) -> str:
    """The private ref that keeps a revision for ever (`spec.md` 3)."""
    return f"refs/conman/revisions/{changeset_id}/{head_sha}"


def journal_ref(workspace_id: str) -> str:
    """The private ref of a workspace's journal: one entry per move of its branch (docs/adr/0007)."""
    return f"refs/conman/journals/{workspace_id}"


def scratch_ref(workspace_id: str, name: str) -> str:
    """Where one request makes its commits before the workspace's refs move to them; gone when the request has ended."""
    return f"refs/conman/scratch/{workspace_id}/{name}"


def candidate_ref(release_id: str, step: int) -> str:
    """The private ref of a release candidate after its first `step` changesets."""
    return f"refs/conman/releases/{release_id}/{step:04d}"


def revalidation_ref(changeset_id: str) -> str:
    """The private ref of a queued changeset merged onto the integration head."""
    return f"refs/conman/revalidations/{changeset_id}"
