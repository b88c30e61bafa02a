"""Who belongs to an app: changes in one order, and the rule that an app always has an app_admin (`spec.md` 5).

The app's record decides (`durability.md` 3): each change is one guarded write there, which numbers it, keeps who counts as an
app_admin, and names it until the membership shows it; the next change comes after. docs/adr/0011-members-in-one-order.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conman.domain.decision import Actor, Model
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.roles import Capability, Role, allows


class MemberChange(Model):
    """One change of one person's membership. `number` orders the changes of an app; `role` None: they are no member any more.

    `joins`: it makes the membership `membership_id`, for `created_by`. Who joins again gets another one.
    """

    number: int
    membership_id: str
    user_id: str
    role: Role | None
    joins: bool = False
    at: str
    created_by: str | None = None


class LostVotes(Model):
    """Somebody's votes on what is not yet queued count no more. What they vote after `at`, having come back, counts again."""

    id: str
    user_id: str
    at: str
    actor: Actor


@dataclass(frozen=True, slots=True)
class Admins:
    """An app's app_admins: those who count, and those whose account is disabled or about to be (user → by which disabling)."""

    counting: Sequence[str]
    suspended: Mapping[str, int]


LAST_ADMIN = "is the last app_admin of {app}: make somebody else app_admin there first."


def last_admin(who: str, app_names: Sequence[str]) -> DomainError:
    """The refusal of what would leave an app without an app_admin."""
    return DomainError(ErrorCode.CONFLICT, f"{who} {LAST_ADMIN.format(app=', '.join(app_names))}")


def without(admins: Admins, user_id: str) -> Admins | None:
    """The app_admins once somebody is one no more, by removal or demotion; None: nobody who counts would be left.

    Who is disabled counts no more, so that they may always go.
    """
    suspended = {user: number for user, number in admins.suspended.items() if user != user_id}
    counting = [user for user in admins.counting if user != user_id]
    if user_id in admins.counting and not counting:
        return None
    return Admins(counting, suspended)


def suspend(admins: Admins, user_id: str, number: int, *, joining: bool, needed: bool) -> Admins | None:
    """The app_admins once one of them counts no more because their account is being disabled; None as for `without`.

    `joining`: they are about to become one. `needed`: the app needs one, unlike an archived one. Of several disablings of one
    person the latest stands, so that an earlier one that was given up can't undo it.
    """
    if user_id in admins.suspended:
        return Admins(admins.counting, {**admins.suspended, user_id: max(number, admins.suspended[user_id])})
    if user_id not in admins.counting and not joining:
        return admins
    counting = [user for user in admins.counting if user != user_id]
    if needed and user_id in admins.counting and not counting:
        return None
    return Admins(counting, {**admins.suspended, user_id: number})


def restore(admins: Admins, user_id: str) -> Admins:
    """The app_admins once somebody who was suspended counts again."""
    if user_id not in admins.suspended:
        return admins
    suspended = {user: number for user, number in admins.suspended.items() if user != user_id}
    return Admins([*admins.counting, user_id], suspended)


def promote(admins: Admins, user_id: str, number: int | None) -> Admins:
    """The app_admins once somebody has become one; `number`: of what disables their account, or is about to."""
    if user_id in admins.counting or user_id in admins.suspended:
        return admins
    if number is not None:
        return Admins(admins.counting, {**admins.suspended, user_id: number})
    return Admins([*admins.counting, user_id], admins.suspended)


def may_review(role: Role | None) -> bool:
    """Whether somebody's votes on changesets count."""
    return allows(role, Capability.CHANGESET_REVIEW_OTHERS)


def loses_votes(before: Role | None, after: Role | None) -> bool:
    """Whether a change of role ends somebody's say in reviews, so that their votes on what is not yet queued count no more."""
    return may_review(before) and not may_review(after)
