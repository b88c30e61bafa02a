"""Drift: what an environment is, against what Conman last applied there (`spec.md` 12).

Secrets are compared by digests under a key that was made for one question and is then forgotten, so a report can't be used to try
values against it later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from conman.domain.decision import Model
from conman.domain.redaction import SHORTEST_SECRET_LINE, Redactor
from conman.domain.target import WITHHELD, Observation

DriftKind = Literal["env_var", "secret", "base_url", "database", "migration", "emergency_edit", "files"]


MOST_ITEMS = 300
"""How many differences a report names."""

MOST_REPORT_BYTES = 128 * 1024
"""How much the values of a report take together, bytes of JSON: a report stands in records, in the audit and in histories."""


class DriftItem(Model):
    """One difference. Of a secret `expected` and `observed` are digests, never values; None is what is not there.

    `omitted`: a value is not shown whole, since it holds that of a secret, or would make the report too long.
    """

    kind: DriftKind
    key: str | None = None
    expected: Any = None
    observed: Any = None
    omitted: bool = False


class Applied(Model):
    """What should be there: of one revision of a profile, and the release that went with it.

    `secrets` holds digests under the key of the question; `migrations` those with a recorded success, in their order.
    """

    env_vars: dict[str, str] = Field(default_factory=dict[str, str])
    secrets: dict[str, str] = Field(default_factory=dict[str, str])
    base_url: str | None = None
    database: dict[str, Any] | None = None
    migrations: list[str] = Field(default_factory=list[str])
    files: str | None = None


def drift(applied: Applied | None, observed: Observation, coming: Applied | None = None) -> list[DriftItem]:
    """What differs, by kind and then by key. Nothing was applied there yet: nothing drifts.

    A key that `coming` is about to set to the value that is there already is no drift (`spec.md` 12).
    """
    if applied is None:
        return []
    found = [
        *_keyed("env_var", applied.env_vars, observed.env_vars, coming.env_vars if coming else None),
        *_keyed("secret", applied.secrets, observed.secrets, coming.secrets if coming else None),
    ]
    if observed.observes_base_url and observed.base_url not in (applied.base_url, *((coming.base_url,) if coming else ())):
        found.append(DriftItem(kind="base_url", expected=applied.base_url, observed=observed.base_url))
    if observed.database is not None:
        found += _keyed("database", applied.database or {}, observed.database, (coming.database or {}) if coming else None)
    if observed.migrations is not None:
        found += _migrations(applied.migrations, observed.migrations)
    if observed.files is not None and observed.files not in (applied.files, *((coming.files,) if coming else ())):
        found.append(DriftItem(kind="files", expected=applied.files, observed=observed.files))
    found += [DriftItem(kind="files", key=path, expected=applied.files, observed="changed") for path in observed.changed_paths]
    return found


def _keyed(
    kind: DriftKind, expected: Mapping[str, Any], observed: Mapping[str, Any] | None, coming: Mapping[str, Any] | None
) -> list[DriftItem]:
    if observed is None:
        return []
    found: list[DriftItem] = []
    for key in sorted(expected.keys() | observed.keys()):
        should, there = expected.get(key), observed.get(key)
        if should == there:
            continue
        if coming is not None and coming.get(key) == there:
            continue
        found.append(DriftItem(kind=kind, key=key, expected=should, observed=there))
    return found


def _migrations(expected: Sequence[str], observed: Sequence[str]) -> list[DriftItem]:
    """Those that are recorded and not there, and those that are there and not recorded."""
    missing = [DriftItem(kind="migration", key=one, expected="applied") for one in expected if one not in observed]
    foreign = [DriftItem(kind="migration", key=one, observed="applied") for one in observed if one not in expected]
    return [*missing, *foreign]


def emergency_edit(applied_revision: int, edited_revision: int) -> DriftItem:
    """A change of the profile by hand that the environment has not got yet blocks as drift does (`spec.md` 6 and 12)."""
    return DriftItem(kind="emergency_edit", expected=applied_revision, observed=edited_revision)


# -- Reports


def told(items: Sequence[DriftItem], secrets: Sequence[str]) -> list[DriftItem]:
    """The differences as records, audit and histories may hold them: no value of a secret in a text, and not too long.

    Values of fewer than `SHORTEST_SECRET_LINE` bytes are not looked for: they stand in other texts by chance.
    """
    redactor = Redactor([value for value in secrets if len(value.encode()) >= SHORTEST_SECRET_LINE])
    shown: list[DriftItem] = []
    left = MOST_REPORT_BYTES
    for item in items:
        if item.kind == "secret":
            shown.append(item)
            continue
        expected, observed = redactor.scrub_json(item.expected), redactor.scrub_json(item.observed)
        key = redactor.scrub_text(item.key) if item.key is not None else None
        size = len(json.dumps([expected, observed]))
        whole = size <= left
        left -= size if whole else 0
        same = (expected, observed) == (item.expected, item.observed) and observed != WITHHELD
        values = (expected, observed) if whole else (_length(expected), _length(observed))
        made = {"key": key, "expected": values[0], "observed": values[1], "omitted": not (whole and same)}
        shown.append(item.model_copy(update=made))
    return shown[:MOST_ITEMS]


def _length(value: Any) -> str | None:
    return None if value is None else f"({len(json.dumps(value))} bytes)"


def same_report(one: Sequence[DriftItem], other: Sequence[DriftItem]) -> bool:
    """Whether two reports tell the same. Digests are under another key each time: of a secret only what is there counts."""
    return _essence(one) == _essence(other)


def _essence(report: Sequence[DriftItem]) -> list[tuple[str, str, str, bool]]:
    return sorted((item.kind, item.key or "", _values(item), item.omitted) for item in report)


def _values(item: DriftItem) -> str:
    values = [item.expected, item.observed]
    if item.kind == "secret":
        values = [value is not None for value in values]
    return json.dumps(values, sort_keys=True)


def put_right_by_a_deployment(report: Sequence[DriftItem]) -> list[DriftItem]:
    """What putting a release and its profile in place again sets right: not migrated data, nor an edit of the profile."""
    return [item for item in report if item.kind not in ("migration", "emergency_edit")]
