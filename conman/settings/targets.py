"""Settings of where environments live, and of the programs that put releases there (`spec.md` 12)."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class TargetSettings(BaseSettings):
    """The `directory` target, and the limits of target, migration and health programs."""

    directory_keep: int = Field(
        default=20,
        ge=0,
        le=10_000,
        description="Earlier deployments that the target `directory` keeps beside the current one of each environment; older "
        "ones are removed after a deployment. 0 keeps all.",
    )
    target_timeout_seconds: float = Field(
        default=600.0,
        ge=1,
        le=780,
        description="How long a target program may take to deploy, seconds; then it is killed and the deployment fails.",
    )
    observe_timeout_seconds: float = Field(
        default=60.0,
        ge=1,
        le=600,
        description="How long a target program may take to say what it observes or how healthy it is, seconds; then it is killed "
        "and nothing is known.",
    )
    migration_timeout_seconds: float = Field(
        default=600.0,
        ge=1,
        le=780,
        description="How long one migration may run, seconds; then it is killed and has failed. All those of one deployment have "
        "13 minutes.",
    )
    health_timeout_seconds: float = Field(
        default=120.0,
        ge=1,
        le=780,
        description="How long an environment's health command may take, seconds; then it is killed and the environment counts as "
        "unhealthy.",
    )
    program_memory_mb: int = Field(
        default=4096, ge=64, description="Address space of a target, migration or health program, MiB for each process of it."
    )
    program_cpu_seconds: int = Field(
        default=600, ge=1, description="CPU time of a target, migration or health program, seconds for each process of it."
    )
    program_output_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        description="Log kept of one run of a target, migration or health program, bytes; the rest is cut with a note.",
    )
