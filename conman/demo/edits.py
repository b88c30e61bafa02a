"""What the demo changes in the real files: two proposals as anybody might make them, and one with a slip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conman.demo.show import DemoError


@dataclass(frozen=True)
class Edit:
    """A change of one file: each text on the left becomes the one on the right; all else keeps its bytes."""

    path: str
    changes: Mapping[str, str]

    def apply(self, text: str) -> str:
        """The edited file. Raises `DemoError` when it doesn't hold what is to be changed."""
        for old, new in self.changes.items():
            if old not in text:
                raise DemoError(f"{self.path} does not hold {old!r}: it is not the file that the demo was written for")
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class Proposal:
    """One changeset of the demo."""

    title: str
    edits: tuple[Edit, ...]


RETENTION = Proposal(
    title="Keep the audit logs of SQL servers for 180 days",
    edits=tuple(
        Edit(
            f"{folder}/SQLServerAuditingRetention90Days.json", {'"value": 90}': '"value": 180}', "than 90 days": "than 180 days"}
        )
        for folder in ("terraform/checks/graph_checks/azure", "bicep/checks/graph_checks")
    ),
)

SUPPLY_CHAIN = Proposal(
    title="Count immutable image tags among the supply chain's rules",
    edits=tuple(
        Edit(f"cdk/checks/{language}/ECRImmutableTags.yaml", {"category: GENERAL_SECURITY": "category: SUPPLY_CHAIN"})
        for language in ("python", "typescript")
    ),
)

BROKEN = Proposal(
    title="Say where Multi-AZ is required",
    edits=(
        Edit(
            "cdk/checks/python/RDSMultiAZEnabled.yaml",
            # The slip: the quotes end before the value does.
            {
                "name: Ensure that RDS instances have Multi-AZ enabled": (
                    'name: "Ensure that RDS instances have Multi-AZ enabled" (production)'
                )
            },
        ),
    ),
)

GOOD = (RETENTION, SUPPLY_CHAIN)
