"""Settings of gates: what one run may use, and how long its result and its log are good."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class GateSettings(BaseSettings):
    """Runs of test suites (`spec.md` 9)."""

    gate_memory_mb: int = Field(default=2048, ge=64, description="Address space of one gate run, MiB.")
    gate_cpu_seconds: int = Field(default=600, ge=1, description="CPU time of one gate run, seconds.")
    gate_output_bytes: int = Field(
        default=10_485_760,
        ge=1024,
        description="Log kept of one gate run, bytes; the rest is cut with a note.",
    )
    gate_concurrency: int = Field(default=4, ge=1, le=256, description="Gates that one worker runs at once.")
    suite_reuse_hours: int = Field(
        default=24,
        ge=0,
        le=8760,
        description="How long the result of a suite that passed answers for the same tree, profile, command and limits, hours; "
        "the job says whose result it took over. 0: every gate runs its suite. An app may turn it off for a gate; the gate of a "
        "deployment never reuses.",
    )
    job_log_days: int = Field(
        default=365,
        ge=0,
        le=36_500,
        description="How long the logs of jobs are kept, days; the jobs themselves stay. 0: for ever.",
    )
