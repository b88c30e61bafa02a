"""What a target of deployments is: three questions that a place where environments live must answer (`spec.md` 12).

To add one in code: a class with these three methods, and its name in `conman.targets.registry`. An operator adds one without
code: a program, spoken to by `conman.targets.command` (`docs/targets.md`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from conman.domain.jobs import ReasonCode
from conman.domain.target import Health, Observation, Place
from conman.git.adapter import GitError
from conman.programs.runner_output import OnLine, OutputLine, Stream
from conman.services.rendering import RenderedProfile

Tell = Callable[[Stream, str], Awaitable[None]]
"""Takes one line for the log of the deployment's job; secrets are out of it already."""


def telling(tell: Tell) -> OnLine:
    """A program's lines, as its runner hands them on, for the log of the job."""

    async def on_line(line: OutputLine) -> None:
        await tell(line.stream, line.text)

    return on_line


StillHolds = Callable[[], Awaitable[None]]
"""Raises `TargetError` with `fenced` when a later deployment has the environment (`durability.md` 15)."""


class TargetError(Exception):
    """A target did not do what it was told, or can't say what is there; `message` is for people and holds no secret.

    `again`: the same order may succeed later without a change (a machine's trouble); else something must be mended first.
    `fenced`: a later deployment has the environment, and nothing was changed.
    """

    def __init__(
        self, message: str, *, reason: ReasonCode = ReasonCode.INFRASTRUCTURE, again: bool = False, fenced: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.again = again
        self.fenced = fenced


def unreadable(error: GitError) -> TargetError:
    """The release's commit could not be read."""
    return TargetError(f"The release can't be read from the repository: {error}.", again=error.safe_to_repeat)


@dataclass(frozen=True, slots=True)
class DeployOrder:
    """Put this commit and this profile in place. The same `deployment_id` and `fence` may come again, and change nothing more.

    `still_holds` is asked just before each visible effect. `repo_path` is the app's repository, `rendered` holds the values of
    secrets: a target writes them where only the environment reads them. `job_id` is the job that scratch folders belong to.
    """

    place: Place
    deployment_id: str
    release_id: str
    job_id: str
    tag: str
    commit_sha: str
    fence: int
    repo_path: str
    rendered: RenderedProfile = field(repr=False)
    still_holds: StillHolds = field(repr=False)
    tell: Tell = field(repr=False)


@dataclass(frozen=True, slots=True)
class Placed:
    """What was put in place: where it is to be seen (None where that is no folder of this machine), and how many files."""

    folder: str | None
    files: int


@dataclass(frozen=True, slots=True)
class ObserveOrder:
    """Say what is there. `digest_key` is for this question alone: secrets are told as HMAC-SHA256 under it.

    `applied` is what Conman last put there, `commit_sha` the commit whose files went with it; None before the first deployment.
    """

    place: Place
    fence: int
    digest_key: bytes = field(repr=False)
    repo_path: str = ""
    deployment_id: str | None = None
    commit_sha: str | None = None
    applied: RenderedProfile | None = field(default=None, repr=False)


class Target(Protocol):
    """A place where environments live. Every method raises `TargetError`."""

    async def deploy(self, order: DeployOrder) -> Placed:
        """Put it in place so that a reader sees one deployment whole, the one before it or this one."""
        ...

    async def observe(self, order: ObserveOrder) -> Observation:
        """What is there now; a field that can't be observed is None."""
        ...

    async def health(self, order: DeployOrder) -> Health:
        """Whether what the order says is in place, and works as far as the target can tell."""
        ...
