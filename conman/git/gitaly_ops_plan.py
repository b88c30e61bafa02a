"""How a commit is made on a server of operations: one pure decision from the facts.

The server's operations are used where one makes exactly the commit that is wanted; what none of them can express is built
here and pushed. Whatever the decision, what was made is held against what was wanted before a ref of ours shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Work(StrEnum):
    """What the commit is."""

    FILES = "files"
    """A tree that the caller made, on top of at most one parent."""
    SQUASH = "squash"
    """The tree of a commit, on top of any parents."""
    MERGE = "merge"
    REBASE = "rebase"


class Route(StrEnum):
    """How it is made."""

    BRANCH = "branch"
    """`UserCommitFiles` on the target itself, which it compares and swaps."""
    SCRATCH = "scratch"
    """`UserCommitFiles` on a new branch of our own; then the target moves."""
    SQUASH = "squash"
    """`UserSquash`, which moves no ref; then the target moves."""
    MERGE = "merge"
    """`UserMergeToRef` to a ref of our own; then the target moves."""
    REBASE = "rebase"
    """`UserRebaseToRef` to a ref of our own; then the target moves."""
    PUSH = "push"
    """Built here and pushed, which compares and swaps the target."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision depends on."""

    work: Work
    parents: int
    """How many the commit has."""
    to_branch: bool
    """The target is a branch."""
    to_present: bool
    """The target exists (it has an expected old value)."""
    zone: bool
    """The committer's offset from UTC has a time zone with a name."""
    one_time: bool
    """Author and committer have the same time and offset."""
    message: bool
    """The message is not empty."""
    plain: bool = True
    """Only files that were and stay files are written, made, deleted or made executable; none takes a folder's place."""
    attributes: bool = False
    """Git attributes are in the tree, by which a server may convert the content of files as it writes them."""
    squashable: bool = False
    """The commit whose tree is taken descends from the one parent, and the message ends its last line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision; `reason` says what the operations can't express when it is a push."""

    route: Route
    reason: str = ""


_INEXPRESSIBLE: tuple[tuple[Callable[[Facts], bool], str], ...] = (
    (lambda facts: not facts.zone, "the committer's time zone"),
    (lambda facts: facts.work is not Work.REBASE and not facts.one_time, "times of author and committer that differ"),
    (lambda facts: facts.work is not Work.REBASE and not facts.message, "an empty message"),
    (lambda facts: facts.work in (Work.FILES, Work.SQUASH) and facts.parents > 1, "several parents with a tree of its own"),
    (
        lambda facts: facts.work in (Work.FILES, Work.SQUASH) and not facts.plain and not facts.squashable,
        "links, submodules, or a file and a folder that change places",
    ),
)
"""What no operation can express, in the order in which it is told."""


def plan(facts: Facts) -> Plan:
    """The route of a commit: the operation made for its kind, files on a branch where that fits, and else a push."""
    for applies, reason in _INEXPRESSIBLE:
        if applies(facts):
            return Plan(Route.PUSH, reason)
    match facts.work:
        case Work.MERGE:
            return Plan(Route.MERGE)
        case Work.REBASE:
            return Plan(Route.REBASE)
        case Work.SQUASH if facts.squashable:
            return Plan(Route.SQUASH)
        case _:
            # A branch is compared before it is swapped only where the operation is told what it holds.
            direct = facts.to_branch and facts.to_present and facts.parents == 1 and not facts.attributes
            return Plan(Route.BRANCH if direct else Route.SCRATCH)
