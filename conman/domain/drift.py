"""Drift: what an environment is, against what Conman last applied there (`spec.md` 12)."""

from __future__ import annotations

from typing import Any, Literal

from conman.domain.decision import Model

DriftKind = Literal["env_var", "secret", "base_url", "database", "migration", "emergency_edit", "files"]


class DriftItem(Model):
    """One difference. Of a secret `expected` and `observed` are digests, never values; None is what is not there."""

    kind: DriftKind
    key: str | None = None
    expected: Any = None
    observed: Any = None
