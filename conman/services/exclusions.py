"""Which members of a selection exclude each other, asked of a repository (`domain/exclusions.py`, `spec.md` 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from conman.domain.exclusions import MOST_PAIRS, Exclusions, search
from conman.domain.override_collisions import colliding_keys
from conman.domain.release import Member
from conman.git.adapter import GitAdapter, TrialMerge


@dataclass(frozen=True, slots=True)
class Tried:
    """The whole selection merged in its order, one trial per member, and what of it excludes what."""

    merges: list[TrialMerge]
    found: Exclusions


async def find_exclusions(
    git: GitAdapter, repo: str, base: str, members: Sequence[Member], most_pairs: int = MOST_PAIRS
) -> Tried:
    """Try merges onto `base` until the question is settled, or `most_pairs` pairs were tried. No ref moves."""
    heads = {member.changeset_id: member.head_sha for member in members}
    searching = search(list(heads), _colliding(members), most_pairs)
    order = next(searching)
    whole: list[TrialMerge] | None = None
    while True:
        tried = await git.trial_merges(repo, base, [heads[one] for one in order])
        whole = tried if whole is None else whole
        try:
            order = searching.send([one for one, trial in zip(order, tried, strict=True) if not trial.clean])
        except StopIteration as end:
            return Tried(whole, end.value)


def _colliding(members: Sequence[Member]) -> list[tuple[str, str]]:
    """Pairs whose overrides collide: the queue parts them, but not before a publish or an entry has it look (`spec.md` 6)."""
    overriding = [member for member in members if member.overrides]
    return [
        (one.changeset_id, other.changeset_id)
        for one, other in combinations(overriding, 2)
        if colliding_keys(one.overrides, other.overrides)
    ]
