"""The local Temporal server: the binary found, fetched or built, its command line, and how to tell that it is ready."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetSystemInfoRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from conman.embedded import guard
from conman.embedded.cache import Cache
from conman.embedded.errors import NotReady, Progress
from conman.embedded.toolchain import find_go, find_java, maven_jars, run_step

CLI_VERSION = "v1.5.1"
TEST_SERVER = "io.temporal:temporal-test-server:1.38.0"

RETENTION = timedelta(days=30)
"""How long the default namespace keeps finished workflows; the development server's own default is a day."""

_CLI_PACKAGE = f"github.com/temporalio/cli/cmd/temporal@{CLI_VERSION}"
_LINK_FLAGS = f"-s -w -X github.com/temporalio/cli/temporalcli.Version={CLI_VERSION.removeprefix('v')}"
_FIRST_BYTE_SECONDS = 8.0
_DOWNLOAD_SECONDS = 600.0
_RPC_SECONDS = timedelta(seconds=2)

_PRAGMAS = ("journal_mode=wal", "synchronous=1")
_DYNAMIC_CONFIG = (
    # The defaults throttle one worker to about ten events a second.
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    # With the default of 10 in flight, bursts on one entity fail.
    "history.maxInFlightUpdates=500",
    "history.maxTotalUpdates=20000",
    # An activity of the workflow's own queue goes to the worker with the answer to its workflow task: one dispatch less.
    "system.enableActivityEagerExecution=true",
)


async def find_temporal(cache: Cache, progress: Progress) -> Path:
    """The Temporal CLI: on PATH, in the cache, by the SDK's download, or built with Go. Raises `EmbeddedError`."""
    on_path = shutil.which("temporal")
    if on_path:
        return Path(on_path)

    async def make(made: Path, work: Path) -> None:
        if await _sdk_download(work, made / "temporal", progress):
            return
        go = await find_go(work, progress)
        env = dict(os.environ)
        env.update(GOBIN=str(made), CGO_ENABLED="0")
        # Set on a machine that cross-compiles, these would give a binary that can't run here.
        for name in ("GOOS", "GOARCH"):
            env.pop(name, None)
        await run_step(
            [str(go), "install", f"-ldflags={_LINK_FLAGS}", _CLI_PACKAGE],
            what=f"building Temporal {CLI_VERSION} with Go (once; about five minutes on two cores)",
            progress=progress,
            log=work / "go.log",
            env=env,
        )

    return await cache.get(f"temporal-{CLI_VERSION}", make, progress) / "temporal"


async def _sdk_download(work: Path, target: Path, progress: Progress) -> bool:
    """Let the SDK download the CLI; False where it can't, which must not take long.

    In a process of its own: the SDK offers no way to give up, and no way to download without starting the server.
    """
    folder = work / "download"
    folder.mkdir()
    program = (
        "import asyncio, sys\n"
        "from temporalio.testing import WorkflowEnvironment\n"
        "from conman.leaving import run_to_exit\n"
        "async def main():\n"
        "    environment = await WorkflowEnvironment.start_local(\n"
        "        download_dest_dir=sys.argv[1], dev_server_download_version=sys.argv[2])\n"
        "    await environment.shutdown()\n"
        "run_to_exit(lambda: asyncio.run(main()))\n"
    )
    progress(f"trying the Temporal SDK's own download of {CLI_VERSION}")
    process = await asyncio.create_subprocess_exec(
        *guard.command([sys.executable, "-c", program, str(folder), CLI_VERSION]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = time.monotonic()
    try:
        while process.returncode is None:
            elapsed = time.monotonic() - started
            arrived = any(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if elapsed > (_DOWNLOAD_SECONDS if arrived else _FIRST_BYTE_SECONDS):
                break
            await asyncio.sleep(0.1)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    binary = next((path for path in folder.rglob("*") if path.is_file()), None)
    if process.returncode != 0 or binary is None:
        progress("the SDK's download is not reachable from here")
        return False
    _install(binary, target)
    return True


def _install(binary: Path, target: Path) -> None:
    binary.rename(target)
    target.chmod(target.stat().st_mode | stat.S_IXUSR)


def server_command(
    binary: Path, *, folder: Path, port: int, ui_port: int, namespace: str, codec_endpoint: str | None = None
) -> list[str]:
    """The command line of the server with its database below `folder`, reachable from this machine only.

    Its Web UI asks the codec server at `codec_endpoint`, a URL, to decode payloads.
    """
    command = [
        str(binary), "server", "start-dev",
        "--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port),
        "--db-filename", str(folder / "temporal.db"),
        "--namespace", namespace,
        "--log-level", "warn",
    ]  # fmt: skip
    if codec_endpoint is not None:
        command += ["--ui-codec-endpoint", codec_endpoint]
    for pragma in _PRAGMAS:
        command += ["--sqlite-pragma", pragma]
    for value in _DYNAMIC_CONFIG:
        command += ["--dynamic-config-value", value]
    return command


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would configure the CLI behind our back."""
    return {name: value for name, value in environment.items() if not name.startswith("TEMPORAL_")}


async def check_ready(address: str, namespace: str) -> Client:
    """A client, once the server is healthy and knows the namespace. Raises `NotReady` until then."""
    try:
        client = await Client.connect(address, namespace=namespace, lazy=True)
        if not await client.service_client.check_health(timeout=_RPC_SECONDS):
            raise NotReady("the frontend says that it is not serving")
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace), timeout=_RPC_SECONDS)
    except (RPCError, RuntimeError) as error:  # RuntimeError is what the SDK raises when it can't connect
        raise NotReady(str(error)) from error
    return client


async def set_retention(client: Client) -> str:
    """Keep finished workflows for `RETENTION`, so that the Web UI shows them; gives the server's version.

    Raises `NotReady` if the server doesn't answer any more.
    """
    keep = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=int(RETENTION.total_seconds())))
    try:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=client.namespace, config=keep), timeout=_RPC_SECONDS
        )
        info = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=_RPC_SECONDS)
    except RPCError as error:
        raise NotReady(str(error)) from error
    return info.server_version


async def find_test_server(cache: Cache, progress: Progress) -> Path:
    """A program for `WorkflowEnvironment.start_time_skipping(test_server_existing_path=…)`. Raises `EmbeddedError`."""
    java = await find_java(cache, progress)

    async def make(made: Path, work: Path) -> None:
        await maven_jars(
            [TEST_SERVER, "org.slf4j:slf4j-nop:1.7.36"],
            made / "jars",
            work,
            java=java,
            what="Temporal's time-skipping test server",
            progress=progress,
        )

    folder = await cache.get(f"temporal-test-server-{TEST_SERVER.rpartition(':')[2]}", make, progress)
    # The script names this machine's Java, so it stands outside of the artifact and is written anew each time.
    script = cache.folder / "temporal-test-server.sh"
    draft = script.with_suffix(f".{os.getpid()}")
    draft.write_text(
        "#!/bin/sh\n"
        f"exec '{sys.executable}' -I -S '{guard.__file__}' \"$PPID\" '{java}' -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        f" -Xmx512m -cp '{folder}/jars/*' io.temporal.testserver.TestServer \"$@\"\n",
        encoding="utf-8",
    )
    draft.chmod(0o755)
    draft.replace(script)
    return script
