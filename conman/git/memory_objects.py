"""Git objects in a dictionary, with the names that git gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

from conman.git.adapter import Commit, Signature
from conman.git.checks import MODE_TREE, checked_message, checked_signature, shown, trailers

Kind = Literal["blob", "tree", "commit", "tag"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A file, link or submodule of a tree."""

    mode: int
    sha: str


Files = dict[bytes, Leaf]
"""A whole tree: path → leaf."""


@dataclass(frozen=True, slots=True)
class RawCommit:
    """A commit as it is stored; `author` and `committer` are the lines as they stand."""

    tree: str
    parents: tuple[str, ...]
    author: bytes
    committer: bytes
    message: bytes
    encoding: str = "utf-8"


class ObjectStore:
    """Objects by name. What was put once stays."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[Kind, bytes]] = {}
        self._files: dict[str, Files] = {}

    def put(self, kind: Kind, data: bytes) -> str:
        """Keep an object; its name."""
        sha = hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
        self._objects[sha] = (kind, data)
        return sha

    def kind(self, sha: str) -> Kind | None:
        """The type of an object, None when there is none of that name."""
        return self._objects[sha][0] if sha in self._objects else None

    def read(self, kind: Kind, sha: str) -> bytes | None:
        """An object's bytes, None when there is none of that name and type."""
        found = self._objects.get(sha)
        return found[1] if found is not None and found[0] == kind else None

    def blob(self, sha: str) -> bytes:
        """The bytes of a blob that exists."""
        data = self.read("blob", sha)
        if data is None:
            raise LookupError(sha)
        return data

    def put_files(self, files: Files) -> str:
        """Keep the trees that hold these files; the name of the root."""
        here: dict[bytes, Leaf] = {}
        below: dict[bytes, Files] = {}
        for path, leaf in files.items():
            name, slash, rest = path.partition(b"/")
            if slash:
                below.setdefault(name, {})[rest] = leaf
            else:
                here[name] = leaf
        for name, inner in below.items():
            here[name] = Leaf(MODE_TREE, self.put_files(inner))
        lines = [b"%o %s\0%s" % (here[name].mode, name, bytes.fromhex(here[name].sha)) for name in sorted(here, key=_order(here))]
        sha = self.put("tree", b"".join(lines))
        self._files[sha] = dict(files)
        return sha

    def files(self, tree: str) -> Files:
        """All leaves below a tree; not to be changed by the caller."""
        if tree not in self._files:
            found: Files = {}
            for name, leaf in self.entries(tree):
                if leaf.mode == MODE_TREE:
                    found.update({name + b"/" + path: inner for path, inner in self.files(leaf.sha).items()})
                else:
                    found[name] = leaf
            self._files[tree] = found
        return self._files[tree]

    def entries(self, tree: str) -> Iterator[tuple[bytes, Leaf]]:
        """The direct entries of a tree, folders too, as they stand."""
        data = self.read("tree", tree)
        if data is None:
            raise LookupError(tree)
        while data:
            head, _, rest = data.partition(b"\0")
            mode, _, name = head.partition(b" ")
            yield name, Leaf(int(mode, 8), rest[:20].hex())
            data = rest[20:]

    def put_commit(self, commit: RawCommit) -> str:
        """Keep a commit; its name."""
        lines = [b"tree " + commit.tree.encode()]
        lines += [b"parent " + parent.encode() for parent in commit.parents]
        lines += [b"author " + commit.author, b"committer " + commit.committer]
        return self.put("commit", b"\n".join(lines) + b"\n\n" + commit.message)

    def commit(self, sha: str) -> RawCommit:
        """A commit that exists."""
        data = self.read("commit", sha)
        if data is None:
            raise LookupError(sha)
        head, _, message = data.partition(b"\n\n")
        fields: dict[bytes, list[bytes]] = {}
        for line in head.split(b"\n"):
            key, _, value = line.partition(b" ")
            fields.setdefault(key, []).append(value)
        return RawCommit(
            tree=fields[b"tree"][0].decode(),
            parents=tuple(parent.decode() for parent in fields.get(b"parent", [])),
            author=fields[b"author"][0],
            committer=fields[b"committer"][0],
            message=message,
            encoding=fields.get(b"encoding", [b"utf-8"])[0].decode(),
        )

    def peel(self, sha: str) -> str | None:
        """The commit that a commit or a tag (of a tag …) names, None when it names something else or nothing."""
        while self.kind(sha) == "tag":
            tag = self.read("tag", sha) or b""
            sha = tag.partition(b"\n")[0].removeprefix(b"object ").decode()
        return sha if self.kind(sha) == "commit" else None


def signature_line(operation: str, signature: Signature) -> bytes:
    """The line that a commit keeps of a signature."""
    name, email, seconds, minutes = checked_signature(operation, signature)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    return f"{name} <{email}> {seconds} {sign}{hours:02}{rest:02}".encode()


def new_commit(
    operation: str,
    tree: str,
    parents: tuple[str, ...],
    author: Signature,
    committer: Signature,
    message: str,
) -> RawCommit:
    """A commit to put."""
    return RawCommit(
        tree,
        parents,
        signature_line(operation, author),
        signature_line(operation, committer),
        checked_message(operation, message),
    )


def metadata(sha: str, raw: RawCommit) -> Commit:
    """Our view of a commit."""
    try:
        message = raw.message.decode(raw.encoding, "replace")
    except LookupError:
        message = shown(raw.message)
    author, committer = _signature(raw.author), _signature(raw.committer)
    return Commit(sha, raw.tree, raw.parents, author, committer, message, trailers(message))


def _signature(line: bytes) -> Signature:
    person, _, moment = line.rpartition(b"> ")
    name, _, email = person.partition(b" <")
    seconds, zone = moment.split(b" ")
    minutes = int(zone[1:3]) * 60 + int(zone[3:5])
    offset = timedelta(minutes=-minutes if zone.startswith(b"-") else minutes)
    when = datetime.fromtimestamp(int(seconds), UTC).astimezone(timezone(offset))
    return Signature(shown(name), shown(email), when)


def _order(entries: dict[bytes, Leaf]):
    """Git sorts a folder as if its name ended in a slash."""
    return lambda name: name + b"/" if entries[name].mode == MODE_TREE else name
