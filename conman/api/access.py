"""Who asks, and whether they may: login, membership, capability, in this order (`api.md` 1 and 2).

Every route declares its access by one of `public()`, `logged_in()`, `platform_capability()` or `capability()`; one that declares
none stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from conman.api import rate_limits
from conman.api.middleware import file_body_cap, is_file_route
from conman.api.openapi import request_body
from conman.api.subjects import SUBJECTS
from conman.domain.decision import Actor
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.roles import Capability, Role, allows, is_owned, may_create_app, owned
from conman.services import sessions
from conman.services.call import Call, body_digest, command_id, has_succeeded, is_repeat, key_id, remember
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.store import memberships, records
from conman.store.database import Document

_BEARER = Depends(HTTPBearer(auto_error=False, description="the token of POST /api/auth/login"))
"""Tells the OpenAPI document that a route wants a token; the check itself is `_caller`."""

_KEY = re.compile(r"^[\x21-\x7e]{1,255}$")
_IGNORES_KEYS = re.compile(r"^/api/auth/|^/api/apps/[^/]+/runtime-profiles/[^/]+/secrets/[^/]+/reveal$")
"""What an `Idempotency-Key` says nothing about: its answers hold tokens and are never kept."""


def platform_of(request: Request) -> Platform:
    """The process's components."""
    return request.app.state.platform


@dataclass(slots=True)
class Caller:
    """Who asks; `app` and `role` are set on routes of an app."""

    platform: Platform
    call: Call
    session_id: str
    session_ends: str = ""
    app: Document | None = None
    role: Role | None = None

    @property
    def user(self) -> Document:
        """The caller's account."""
        return self.call.user

    @property
    def of_app(self) -> Document:
        """The app of the route."""
        if self.app is None:
            raise LookupError("this route has no app")
        return self.app

    def may(self, wanted: Capability) -> bool:
        """Whether the caller has a capability."""
        return allows(self.role, wanted, platform_admin=self.user["is_platform_admin"])

    def require(self, wanted: Capability) -> None:
        """Raises `forbidden` without the capability."""
        if not self.may(wanted):
            raise _forbidden(wanted)

    def require_own(self, owner_id: str, own: Capability) -> None:
        """What is the caller's own needs `own`; somebody else's needs its `…_ANY`, and is nobody's where there is none."""
        wanted = owned(own, is_own=owner_id == self.user["_id"])
        if wanted is None:
            raise _forbidden(own)
        self.require(wanted)


def _forbidden(wanted: Capability) -> DomainError:
    return DomainError(
        ErrorCode.FORBIDDEN, f"You may not do this ({wanted.value}): ask an app admin for the role that may.", None
    )


def _mark(dependency: Any, name: str) -> Any:
    dependency.access = name
    return Depends(dependency)


def public() -> Any:
    """A route that anybody may call; the call has no user."""

    async def anyone(request: Request) -> Caller:
        await rate_limits.limit(request)
        platform = platform_of(request)
        at = now()
        return Caller(platform, Call(command_id=f"anonymous:{new_id(at)}", at=at, actor=_actor(request, None)), session_id="")

    return _mark(anyone, "public")


def _actor(request: Request, user_id: str | None) -> Actor:
    agent = request.headers.get("user-agent")
    return Actor(
        user_id=user_id,
        ip=request.client.host if request.client else None,
        user_agent=agent[:256] if agent else None,
        request_id=request.state.request_id,
    )


async def _login(request: Request) -> sessions.Login:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise DomainError(ErrorCode.UNAUTHORIZED, "Log in and send the token as `Authorization: Bearer …`.")
    return await sessions.who(platform_of(request), token.strip())


async def is_still_admitted(request: Request, wanted: Capability) -> bool:
    """Whether the caller of a route of an app would be let in now: what streams ask, since access ends at once (`spec.md` 5)."""
    db = platform_of(request).db
    try:
        login = await _login(request)
    except DomainError:
        return False
    return allows(await memberships.role_now(db, request.path_params["app"], login.user["_id"]), wanted)


async def _caller(request: Request) -> Caller:
    await rate_limits.limit(request)
    platform = platform_of(request)
    login = await _login(request)
    await rate_limits.limit(request, login.user["_id"])
    at = now()
    call = Call(command_id=new_id(at), at=at, actor=_actor(request, login.user["_id"]), user=login.user)
    return Caller(platform, call, login.session_id, login.expires_at)


async def _admitted(request: Request, caller: Caller) -> Caller:
    """The caller, who may do this. A route without a body is settled now, others once their body is known to be sound."""
    request.state.caller = caller
    if not getattr(request.scope["endpoint"], "takes_body", False):
        await settle(request)
    return caller


def check_size(request: Request, size: int) -> None:
    """Hold the body of a file route to what its app's file size limit needs (`spec.md` 7). Raises `payload_too_large`."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or caller.app is None or not is_file_route(request.url.path):
        return  # the middleware has held it to the cap of all other routes
    cap = file_body_cap(caller.app["settings"]["file_size_limit_bytes"])
    if size > cap:
        raise DomainError(ErrorCode.PAYLOAD_TOO_LARGE, f"The body is over {cap} bytes: send less at once.")


def takes_key(method: str, path: str) -> bool:
    """Whether an `Idempotency-Key` counts on this route."""
    return method not in ("GET", "HEAD") and _IGNORES_KEYS.match(path) is None


def _remembered_as(request: Request, caller: Caller) -> str | None:
    """Where the request's `Idempotency-Key` is remembered; None where it has none that counts."""
    key = request.headers.get("idempotency-key")
    if key is None or not takes_key(request.method, request.url.path):
        return None
    return key_id(caller.call.user_id, request.method, request.url.path, key)


async def settle(request: Request) -> None:
    """Give the call the command id of its `Idempotency-Key`, if it has one (`durability.md` 4).

    A request that was refused before (login, role, an unsound body) leaves its key unused. Raises `conflict` when the key was
    used with another body, `validation_error` for a key that is none, and the refusal that the first request with it met.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    remembered_as = _remembered_as(request, caller) if caller is not None else None
    if caller is None or remembered_as is None:
        return
    if not _KEY.match(request.headers["idempotency-key"]):
        raise invalid("Idempotency-Key", "needs 1 to 255 printable characters")
    digest = body_digest(caller.platform.secret, await request.body() + b"\0" + request.url.query.encode())
    at = await remember(caller.platform.db, remembered_as, digest, caller.call.at)
    command = command_id(remembered_as, at)
    caller.call = replace(caller.call, command_id=command, at=at, keyed=True, key_id=remembered_as)


async def _check_subjects(request: Request, caller: Caller, wanted: Capability) -> None:
    """Refuse a mutation of what is another app's, or another's where only one's own may be touched, before its body is read.

    What a repeat with the same key names may be gone, by the first request: its service knows that.
    """
    owner: str | None = None
    for name in request.path_params:
        subject = SUBJECTS.get(name)
        owner = None  # the last record that the path names is the one whose owner counts
        if subject is None:
            continue
        try:
            found = await subject.find(caller.platform, caller.of_app, request.path_params, name)
        except DomainError as error:
            remembered_as = _remembered_as(request, caller)
            if error.code is ErrorCode.NOT_FOUND and remembered_as and await is_repeat(caller.platform.db, remembered_as):
                return
            raise
        owner = await subject.owner(caller.platform, found) if subject.owner is not None else None
    if owner is not None and is_owned(wanted):
        caller.require_own(owner, wanted)
    if wanted is Capability.CHANGESET_REVIEW_OTHERS and owner == caller.user["_id"]:
        raise DomainError(ErrorCode.FORBIDDEN, "The author of a changeset can't review it; ask somebody else to.")


def logged_in() -> Any:
    """A route for everybody with an account."""

    async def anybody(request: Request, _: Any = _BEARER) -> Caller:
        return await _admitted(request, await _caller(request))

    return _mark(anybody, "logged_in")


def platform_capability(wanted: Capability) -> Any:
    """A route outside apps that needs a platform capability."""

    async def allowed(request: Request, _: Any = _BEARER) -> Caller:
        caller = await _caller(request)
        caller.require(wanted)
        if "user" in request.path_params:
            await records.get(caller.platform.db, "users", request.path_params["user"], what="user")
        return await _admitted(request, caller)

    return _mark(allowed, wanted.value)


def app_creation() -> Any:
    """The route that makes apps: the platform admins' alone, unless the setting `app_creation` opens it to everybody."""

    async def allowed(request: Request, _: Any = _BEARER) -> Caller:
        caller = await _caller(request)
        any_user = caller.platform.settings.app_creation == "any_user"
        if not may_create_app(platform_admin=caller.user["is_platform_admin"], any_user=any_user):
            raise DomainError(ErrorCode.FORBIDDEN, "Only a platform admin makes apps here: ask one.")
        return await _admitted(request, caller)

    return _mark(allowed, Capability.APP_CREATE.value)


async def _refuse_archived(request: Request, caller: Caller) -> None:
    """Nothing of an archived app is changed (`api.md` 3). A repeat of what has succeeded before meets its answer."""
    if not caller.of_app["archived"]:
        return
    remembered_as = _remembered_as(request, caller)
    if remembered_as is None or not await has_succeeded(caller.platform.db, remembered_as):
        raise DomainError(ErrorCode.CONFLICT, "The app is archived: nothing of it can be changed any more.")


def capability(*wanted: Capability, archived_too: bool = False) -> Any:
    """A route of an app that needs the first of `wanted`; the others it may ask for besides, for other people's things.

    One that changes something is refused for an archived app, unless it decides that itself (`archived_too`).
    """

    async def allowed(request: Request, _: Any = _BEARER) -> Caller:
        caller = await _caller(request)
        app = await records.find(caller.platform.db, "apps", request.path_params["app"])
        if app is None or not app["ready"]:
            raise not_found("app")
        member = await memberships.of_app(caller.platform.db, app, caller.user["_id"])
        if member is None:
            raise DomainError(ErrorCode.FORBIDDEN, "You are not a member of this app: ask one of its admins for an invite.")
        caller.app = app
        caller.role = Role(member["role"])
        caller.require(wanted[0])
        if request.method not in ("GET", "HEAD"):  # a handler that reads asks for itself: it has no body to come first
            await _check_subjects(request, caller, wanted[0])
            if not archived_too:
                await _refuse_archived(request, caller)
        return await _admitted(request, caller)

    return _mark(allowed, "+".join(one.value for one in wanted))


class AccessError(Exception):
    """A route does not say who may call it."""


def _dependencies(dependant: Dependant) -> Iterator[Any]:
    for child in dependant.dependencies:
        yield child.call
        yield from _dependencies(child)


def check_every_route(routers: Iterable[APIRouter]) -> None:
    """Raises `AccessError` for a route that declares no access; describes bodies in the OpenAPI document on the way."""
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise AccessError(f"{route!r} is no API route; it can't declare who may call it")
            calls = list(_dependencies(route.dependant))
            access = [call.access for call in calls if hasattr(call, "access")]
            if len(access) != 1:
                named = f"{'/'.join(sorted(route.methods or ()))} {route.path}"
                raise AccessError(f"{named} declares {len(access)} kinds of access; it needs one")
            for call in calls:
                if hasattr(call, "body_model"):
                    route.endpoint.__dict__["takes_body"] = True  # see `_admitted`
                    route.openapi_extra = {"requestBody": request_body(call.body_model)}
