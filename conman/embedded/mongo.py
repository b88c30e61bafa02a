"""The local database server: a real mongod where there is one, else the embedded one over an H2 store."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError, NotReady, Progress
from conman.embedded.toolchain import compile_java, find_java, maven_jars

SERVER = "de.bwaldvogel:mongo-java-server-h2-backend:1.47.0"
_LOGGING = "org.slf4j:slf4j-simple:2.0.17"
_LAUNCHER = Path(__file__).with_name("MongoServer.java")
_PING_MS = 1000
_TIER_4 = {"InvocationThreshold": 5_000, "MinInvocationThreshold": 600, "CompileThreshold": 15_000, "BackEdgeThreshold": 40_000}
"""What HotSpot 17 lets a method be called, or loop, before its optimizing compiler (C2) takes it."""
_JVM = ["-XX:+UseSerialGC", *(f"-XX:Tier4{name}={10 * calls}" for name, calls in _TIER_4.items())]
"""Ten times that: with the defaults the compiler takes half of the computing of a server's first minutes, on the cores that
Conman runs on. 2,000 rounds of insert, find and update: 10.3 s of computing by default, 6.2 s so, 4.8 s without C2; 12,000 of
them on a collection that is searched whole: 29.5, 25.2 and 30.1 s. Memory after the first: 342 MiB by
default, 174 MiB with the serial collector and without C2."""


class Engine(StrEnum):
    """Which program serves the database; a data folder stays with the one that made it."""

    MONGOD = "mongod"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class MongoProgram:
    """How to start the database server of one data folder."""

    engine: Engine
    command: Sequence[str]
    """The command line up to what depends on the port and the folder."""

    def at(self, folder: Path, port: int) -> list[str]:
        """The command line for one folder and port, reachable from this machine only."""
        if self.engine is Engine.MONGOD:
            data = folder / "mongod"
            data.mkdir(parents=True, exist_ok=True)
            return [*self.command, "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
        return [*self.command, "127.0.0.1", str(port), str(folder / _STORE)]


_STORE = "embedded.mv"


async def find_mongo(folder: Path, cache: Cache, progress: Progress) -> MongoProgram:
    """The server for the data in `folder`: mongod on PATH, unless the data is the embedded server's. Raises `EmbeddedError`."""
    mongod = shutil.which("mongod")
    made_by_mongod, made_by_embedded = (folder / "mongod").exists(), (folder / _STORE).exists()
    if mongod and not made_by_embedded:
        return MongoProgram(Engine.MONGOD, [mongod])
    if made_by_mongod and not made_by_embedded:
        raise EmbeddedError(f"{folder} holds data of a mongod, and none is on PATH: install it, or take another data folder")
    if mongod:
        progress(f"{folder} was made by the embedded database, so that serves it and not the mongod on PATH")
    java = await find_java(cache, progress)

    async def make(made: Path, work: Path) -> None:
        jars = made / "jars"
        await maven_jars([SERVER, _LOGGING], jars, work, java=java, what="the embedded database", progress=progress)
        await compile_java(_LAUNCHER, jars, made / "classes", work, java=java, progress=progress)

    # The name follows the launcher's text, so that a changed launcher is compiled and not taken from the cache.
    text = hashlib.sha256(_LAUNCHER.read_bytes() + _LOGGING.encode()).hexdigest()[:12]
    artifact = await cache.get(f"mongo-{SERVER.rpartition(':')[2]}-{text}", make, progress)
    classpath = os.pathsep.join([str(artifact / "classes"), str(artifact / "jars" / "*")])
    return MongoProgram(
        Engine.EMBEDDED,
        [
            str(java),
            "-Xmx1g",
            "-XX:+ExitOnOutOfMemoryError",
            *_JVM,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            classpath,
            "MongoServer",
        ],
    )


def uri(port: int) -> str:
    """The URI of a local server."""
    return f"mongodb://127.0.0.1:{port}/?directConnection=true"


async def check_ready(mongo_uri: str) -> None:
    """Return once the server answers a ping. Raises `NotReady` until then, and at a URI that can't be read."""
    try:
        async with AsyncMongoClient(mongo_uri, serverSelectionTimeoutMS=_PING_MS, connectTimeoutMS=_PING_MS) as client:
            await client.admin.command("ping")
    except PyMongoError as error:
        raise NotReady(str(error)) from error
