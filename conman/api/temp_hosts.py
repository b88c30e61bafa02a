"""The hosts of temp envs, before the API: each serves the files of its temp env and nothing else (`spec.md` 13).

A request is for a temp env when its `Host` is the one in the temp env's URL. What has a label such as temp envs have, or lies
below the operator's domain for them, and is no host of one is not found; every other host is the API's own. A domain that an app
set takes no more than such labels, so that no admin of an app can take a host of the API. docs/adr/0031-temp-envs-by-host.md
"""

from __future__ import annotations

import html
import ipaddress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

import structlog
from pymongo.errors import PyMongoError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from conman.api import rate_limits
from conman.api.errors import RETRY_AFTER_SECONDS, STATUS, envelope, request_id_of
from conman.api.file_replies import file_reply, media_type, not_modified
from conman.api.ranges import UnsatisfiableRangeError
from conman.domain.errors import ConmanError, DomainError, ErrorCode, RateLimited, Unavailable, invalid
from conman.domain.rate_limit import Bucket, address_group
from conman.domain.temp_env import TempEnv, TempEnvState
from conman.domain.temp_words import is_label
from conman.git.adapter import GitError
from conman.mail.links import public_base
from conman.services import sessions, temp_env_access
from conman.services.clock import now
from conman.services.platform import Platform
from conman.services.temp_env_files import Folder, file_at
from conman.services.temp_env_use import COLLECTION, touch
from conman.store import records
from conman.store.database import Document

log = structlog.get_logger(__name__)

_COOKIE: Final = "conman_temp_env"
_SECURE_COOKIE: Final = "__Host-conman_temp_env"
"""A browser takes this name from the host itself alone, over HTTPS: no other temp env can set it."""
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # The pages are what a member saved. Each host is an origin of its own, and nothing of it is shown within another one, or read
    # by one: also those of other temp envs, to which a browser would send this one's cookie along.
    "Content-Security-Policy": "frame-ancestors 'self'; base-uri 'self'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
    "Vary": "Cookie, Authorization, Accept",
}
_OVER: Final = frozenset({TempEnvState.EXPIRED, TempEnvState.DELETED})


def host_of(header: str) -> str:
    """The host that a `Host` header names, in lower case, without its port and the root's dot."""
    name = header.strip().lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0].rstrip(".")


def is_below(host: str, domain: str) -> bool:
    """Whether a host name lies below a domain, at any depth."""
    return host.endswith(f".{domain}")


class TempHosts:
    """Which host is whose."""

    def __init__(self, platform: Platform) -> None:
        self._db = platform.db
        self._domain = platform.settings.temp_url_domain
        self._own = {urlsplit(public_base(platform.settings)).hostname, platform.settings.host.lower(), "localhost"}

    async def find(self, host: str) -> Document | None:
        """The temp env that this is the host of; None: it is a host of the API. Raises `not_found` for one that is neither."""
        if host in self._own or "." not in host or _is_address(host):
            return None
        label = host.partition(".")[0]
        found = await self._db[COLLECTION].find_one({"label": label}) if is_label(label) else None
        if found is not None and urlsplit(found["owned"]["url"]).hostname == host:
            return found
        if is_label(label) or is_below(host, self._domain):
            raise DomainError(ErrorCode.NOT_FOUND, "No temporary environment has this host: look up its URL in Conman.")
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class TempHostMiddleware:
    """Answers requests to the hosts of temp envs; passes on those to the API."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self.app = app
        self.hosts = TempHosts(platform)
        self.platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            found = await self.hosts.find(host_of(_the_host(Headers(scope=scope))))
            reply = await _Visit(self.platform, request, found).reply() if found is not None else None
        except ConmanError as error:
            reply = refusal(request, error.code, error.message, details=error.details)
            if isinstance(error, RateLimited):
                reply.headers["Retry-After"] = str(error.retry_after)
        except GitError as error:
            log.warning("git_error", operation=error.operation, error=str(error), request_id=request_id_of(request))
            reply = refusal(request, ErrorCode.GIT_ERROR, "The repository does not answer: try again in a moment.")
        except PyMongoError as error:
            log.warning("dependency_away", error=str(error)[:500], request_id=request_id_of(request))
            reply = refusal(request, ErrorCode.UNAVAILABLE, "The database does not answer: try again in a moment.")
        await (reply or self.app)(scope, receive, send)


def _the_host(headers: Headers) -> str:
    """The `Host` header, or "". Raises `validation_error` for two (RFC 9112, 3.2): a proxy may have gone by the other."""
    hosts = headers.getlist("host")
    if len(hosts) > 1:
        raise invalid("Host", "is there more than once: send one")
    return hosts[0] if hosts else ""


@dataclass(slots=True)
class _Visit:
    """One request to the host of a temp env."""

    platform: Platform
    request: Request
    document: Document

    async def reply(self) -> Response:
        """The answer. Raises what refuses it: method, end of the temp env, access, then what is not there."""
        state = TempEnv.model_validate(self.document["owned"])
        opens = self._path == temp_env_access.OPEN_PATH
        if self.request.method not in (("GET",) if opens else ("GET", "HEAD")):
            allowed = "GET" if opens else "GET, HEAD"
            reply = refusal(self.request, ErrorCode.METHOD_NOT_ALLOWED, f"Here files are read only: {allowed}.")
            reply.headers["Allow"] = allowed
            return reply
        if state.state in _OVER:
            raise DomainError(ErrorCode.GRACE_ENDED, "This temporary environment is over: recreate it in Conman.")
        app = await records.get(self.platform.db, "apps", self.document["app_id"], what="app")
        if opens:
            return await self._open(app, state)
        is_public = app["settings"]["temp_env_access"] == "public"
        await self._admit(app, is_public=is_public)
        if state.state is TempEnvState.PROVISIONING:
            raise Unavailable(ErrorCode.UNAVAILABLE, "This temporary environment is being provisioned: try again in a moment.")
        if state.state is TempEnvState.FAILED:
            raise DomainError(
                ErrorCode.NOT_FOUND, "This temporary environment could not be provisioned: look at its job in Conman."
            )
        await touch(self.platform.db, self.document["_id"], now())
        return await self._file(app, state, is_public=is_public)

    async def _admit(self, app: Document, *, is_public: bool) -> None:
        """Let in members, or everybody; count the request by its user, else by its address."""
        if is_public:
            await self._count(self._address)
            return
        try:
            user = await self._user()
        except DomainError:
            await self._count(self._address)
            raise
        await self._count(user["_id"])
        await temp_env_access.check_member(self.platform, app, user)

    async def _user(self) -> Document:
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return (await sessions.who(self.platform, token.strip())).user
        cookie = self.request.cookies.get(self._cookie, "")
        return await temp_env_access.holder_of(self.platform, self.document["_id"], cookie)

    async def _count(self, subject: str) -> None:
        await rate_limits.count(self.request, Bucket.FILES, subject)

    @property
    def _path(self) -> str:
        return str(self.request.scope["path"])

    @property
    def _address(self) -> str:
        return address_group(self.request.client.host if self.request.client else None)

    @property
    def _is_secure(self) -> bool:
        return str(self.document["owned"]["url"]).startswith("https:")

    @property
    def _cookie(self) -> str:
        return _SECURE_COOKIE if self._is_secure else _COOKIE

    async def _open(self, app: Document, state: TempEnv) -> Response:
        """Take a link's token for a cookie of this host."""
        await self._count(self._address)
        temp_env_access.check_open(state)
        token = self.request.query_params.get("token", "")
        given = await temp_env_access.redeem(self.platform, app, self.document["_id"], token)
        reply = RedirectResponse("/", status_code=303, headers={**_HEADERS, "Cache-Control": "no-store"})
        reply.set_cookie(
            self._cookie, given.value, max_age=given.seconds, path="/", secure=self._is_secure, httponly=True, samesite="lax"
        )
        await touch(self.platform.db, self.document["_id"], now())
        return reply

    async def _file(self, app: Document, state: TempEnv, *, is_public: bool) -> Response:
        found = await file_at(self.platform, app, state, self._path.removeprefix("/"))
        headers = {**_HEADERS, "Cache-Control": "no-cache" if is_public else "private, no-cache"}
        if isinstance(found, Folder):
            query = self.request.url.query
            return RedirectResponse(f"/{quote(found.path)}/" + (f"?{query}" if query else ""), status_code=308, headers=headers)
        etag = f'"{found.blob_id}"'
        same = not_modified(self.request, etag=etag, headers=headers)
        if same is not None:
            return same
        content = await self.platform.git.read_blob(app["repo_path"], found.blob_id)
        kind, size = media_type(found.path, content), len(content)
        try:
            return file_reply(self.request, content, etag=etag, media_type=kind, headers=headers)
        except UnsatisfiableRangeError:
            message = f"The file has {size} bytes: ask for a range within it."
            reply = refusal(self.request, ErrorCode.VALIDATION_ERROR, message, status=416)
            reply.headers["Content-Range"] = f"bytes */{size}"
            return reply


def refusal(request: Request, code: ErrorCode, message: str, *, status: int | None = None, details: Any = None) -> Response:
    """A refusal as a small page for a browser, as the API's envelope for all others."""
    status = status or STATUS[code]
    reply: Response
    if "text/html" in request.headers.get("accept", ""):
        reply = HTMLResponse(_page(status, message, request_id_of(request)), status_code=status)
    else:
        reply = envelope(request, code, message, details)
        reply.status_code = status
    more: dict[str, Any] = {**_HEADERS, "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}
    reply.headers.update(more)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        reply.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return reply


def _page(status: int, message: str, request_id: str) -> str:
    title = f"{status} {HTTPStatus(status).phrase}"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n'
        f"<p>{html.escape(message)}</p>\n<p><small>request {html.escape(request_id)}</small></p>\n</html>\n"
    )
