"""Connection strings of profiles: which server and database they name, and the same connection to another database.

They hold passwords. So nothing here shows one: errors say what to mend in words of their own, and keep the library's to
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import quote, unquote

from pymongo import AsyncMongoClient
from pymongo.asynchronous.uri_parser import parse_uri
from pymongo.errors import PyMongoError

from conman.domain.jobs import ReasonCode
from conman.store.database import Document

_PARTS = re.compile(r"(?P<scheme>mongodb(?:\+srv)?://)(?P<authority>[^/?]+)(?:/(?P<database>[^?]*))?(?:\?(?P<options>.*))?")
_MECHANISMS: Final = {"DEFAULT": "admin", "SCRAM-SHA-1": "admin", "SCRAM-SHA-256": "admin", "PLAIN": "$external"}
"""Those that take all that they need from the connection string, each with where it looks the account up if the string names no
database. The others look it up in `$external` always; they would lend the worker's own identity (its cloud role, its Kerberos
ticket, its certificate) to whoever may write a profile's secrets."""

_OF_THE_WORKER: Final = re.compile(r"[?&;]\s*(?:(?:tls|ssl)\w*(?:file|certs)\w*|srvAllowedHostsSuffix)\s*=", re.IGNORECASE)
"""Options that name files on the worker, which reads them before it connects, and the one that lets a looked-up name stand for
hosts of anybody else."""
_OPTION = re.compile(r"[&;]")
ANSWERS_WITHIN_MS = 5000
"""How long a server may take to be found, milliseconds, whatever a connection string says."""


class CloneError(Exception):
    """A database can't be copied, restored or removed. `message` holds no credentials and nothing of any document.

    `again`: the same may succeed later without anybody mending anything. `refused`: the server answered, and did not do it.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: ReasonCode = ReasonCode.RUNNER_ERROR,
        again: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.again = again
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection string that was understood. `servers` are host:port, of `mongodb+srv` the hosts that its name stands for."""

    uri: str = field(repr=False)
    servers: frozenset[str]
    database: str | None
    auth_source: str | None

    @property
    def where(self) -> str:
        """The servers, for a message."""
        return ", ".join(sorted(self.servers))

    def to(self, database: str) -> Connection:
        """The same connection to another database of the server. The account stays where it was: without `authSource` it is
        looked up in the database of the string, which is another one now.
        """
        parts = _parts(self.uri)
        options = parts["options"] or ""
        named = {name.strip().lower(): value for name, _, value in (one.partition("=") for one in _OPTION.split(options))}
        implied = _MECHANISMS.get(unquote(named.get("authmechanism", "DEFAULT")))
        if "@" in parts["authority"] and "authsource" not in named and implied is not None:
            added = f"authSource={quote(self.auth_source or self.database or implied, safe='')}"
            options = f"{options}{';' if ';' in options else '&'}{added}" if options else added
        uri = f"{parts['scheme']}{parts['authority']}/{quote(database, safe='')}" + (f"?{options}" if options else "")
        return Connection(uri, self.servers, database, self.auth_source)

    def client(self) -> AsyncMongoClient[Document]:
        """A client that gives up on a server which does not answer within 5 s. Whoever takes it closes it.

        Raises `CloneError`.
        """
        try:
            return AsyncMongoClient(
                self.uri,
                serverSelectionTimeoutMS=ANSWERS_WITHIN_MS,
                connectTimeoutMS=ANSWERS_WITHIN_MS,
                appname="conman-temp-envs",
                tz_aware=True,
            )
        except (PyMongoError, ValueError, OSError):
            raise CloneError(f"the options of the connection to {self.where} contradict each other: mend it") from None


async def connection_of(uri: str, what: str, *, allowed: Sequence[str] = (), trusted: bool = False) -> Connection:
    """A connection string as people write it; `what` names it in a message, `allowed` are patterns of servers, empty for all.

    `trusted`: it is the operator's own. Raises `CloneError`.
    """
    if not trusted and _OF_THE_WORKER.search(uri) is not None:
        raise CloneError(
            f"{what} names files of the worker or hosts of other domains (tls…File, srvAllowedHostsSuffix), which temp envs don't"
            " do: leave that out, and let the operator add a certificate authority to those that the worker trusts"
        )
    try:
        parsed: dict[str, Any] = await parse_uri(uri.strip(), warn=True, connect_timeout=ANSWERS_WITHIN_MS / 1000)
    except (PyMongoError, ValueError, OSError) as error:
        if uri.strip().startswith("mongodb+srv://") and error.__cause__ is not None:
            raise CloneError(
                f"the hosts of {what} could not be looked up", reason=ReasonCode.INFRASTRUCTURE, again=True
            ) from None
        # The library's words may quote the string.
        raise CloneError(
            f"{what} is no connection string that can be used: write it as mongodb://user:password@host:port/database"
        ) from None
    options = {str(name).lower(): value for name, value in dict(parsed["options"]).items()}
    servers = frozenset(_server(host, port) for host, port in parsed["nodelist"])
    if not trusted:
        _refuse_foreign(what, options, servers, allowed)
    database: str | None = parsed["database"]
    return Connection(uri.strip(), servers, database, options.get("authsource"))


def _server(host: str, port: int | None) -> str:
    """As people write it; a socket on the worker has no port."""
    if port is None:
        return host
    return f"[{host}]:{port}".lower() if ":" in host else f"{host}:{port}".lower()


def _refuse_foreign(what: str, options: dict[str, Any], servers: frozenset[str], allowed: Sequence[str]) -> None:
    mechanism = str(options.get("authmechanism", "DEFAULT"))
    if mechanism not in _MECHANISMS:
        raise CloneError(
            f"{what} asks the worker to log in with an identity of its own, which temp envs don't do: use a user and a password"
        )
    patterns = [one.replace("[", "[[]") for one in allowed]  # The brackets of an IPv6 address choose no characters.
    outside = sorted(server for server in servers if allowed and not any(fnmatchcase(server, one) for one in patterns))
    if outside:
        raise CloneError(
            f"{what} names {', '.join(outside)}, which is none of CONMAN_TEMP_DATABASE_SERVERS: ask the operator to add it, or"
            " use another base profile"
        )


def _parts(uri: str) -> dict[str, str]:
    found = _PARTS.fullmatch(uri)
    if found is None:
        raise CloneError("a connection string is not written as mongodb://user:password@host:port/database?options")
    return {name: unquote(value) if name == "database" and value else value for name, value in found.groupdict().items()}
