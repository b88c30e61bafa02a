"""When the result of a suite stands for another run of it (docs/adr/0022-results-of-suites-are-reused.md).

A suite that passed is not run again on the same input: the same tree, profile, command and limits. A suite that did not pass
always is: it may be flaky, or what it found may have been mended outside.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Any

from conman.domain.decision import Model
from conman.domain.jobs import ReasonCode
from conman.domain.times import later

NEVER_REUSED = frozenset({"deploy"})
"""Gates whose suite always runs: the one before a deployment looks at what the environment is like now (`spec.md` 12)."""

VOIDING = frozenset({ReasonCode.TESTS_FAILED, ReasonCode.TIMEOUT})
"""How a suite ends that contradicts an earlier `ok` on the same input. All other ends say nothing of the suite."""


@dataclass(frozen=True, slots=True)
class SuiteInput:
    """All on which the verdict of a suite may depend.

    `tree_id` is Git's id of the files: commits that hold the same files are the same input. `profile` is a keyed digest of the
    rendered profile with its secrets, `program` a digest of the command's own files and version. On what else a suite is told
    (the commit, the tag, the job) its verdict must not depend; a gate for which it does turns `reuse` off.
    """

    app_id: str
    scope: str
    tree_id: str
    profile: str
    command: str
    argv: tuple[str, ...]
    program: str
    timeout_seconds: float
    cpu_seconds: int
    memory_bytes: int

    @property
    def key(self) -> str:
        """The id of the result that is kept for this input, and for no other one."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


class SuiteResult(Model):
    """A suite that passed: which job's run it was, when it ended (UTC), and the report that it wrote, without secrets."""

    job_id: str
    attempt: int
    ended_at: str
    report: Any = None


@dataclass(frozen=True, slots=True)
class ReusePolicy:
    """What one gate may do with results. `hours`: up to which age the operator has them reused, 0 for never."""

    scope: str
    wanted: bool
    hours: int
    fresh: bool

    @property
    def keeps(self) -> bool:
        """Whether its own result is kept for others: where the operator, the app and the gate's kind allow reuse at all."""
        return self.scope not in NEVER_REUSED and self.wanted and self.hours > 0

    def accepts(self, result: SuiteResult, job_id: str, at: str) -> bool:
        """Whether an earlier result answers the job at a time.

        One of an earlier attempt of the same job does also where a fresh run is asked for: its worker was lost after it.
        """
        if not self.keeps or later(result.ended_at, timedelta(hours=self.hours)) <= at:
            return False
        return result.job_id == job_id or not self.fresh
