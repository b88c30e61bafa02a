"""The `conman` command (`spec.md` 15)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from conman import __version__
from conman.cli_audit import audit
from conman.cli_audit_backfill import backfill
from conman.cli_audit_role import role
from conman.cli_mails import mails
from conman.cli_prove import prove
from conman.cli_secrets import secrets
from conman.cli_webhooks import webhooks
from conman.config import Settings, SettingsError, load_settings
from conman.leaving import leaving_when_stuck, run_to_exit
from conman.msuite import Form
from conman.msuite.main import HELP as MSUITE_HELP

cli = typer.Typer(
    name="conman",
    help="Change the configuration kept in Git repositories safely: edit, review, check, release, deploy, roll back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
admin = typer.Typer(help="Platform admins.", no_args_is_help=True)
cli.add_typer(admin, name="admin")
cli.add_typer(secrets, name="secrets")
cli.add_typer(audit, name="audit")
audit.command()(backfill)
audit.command()(role)
cli.add_typer(mails, name="mails")
cli.command()(prove)
cli.add_typer(webhooks, name="webhooks")

out = Console()
err = Console(stderr=True)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of all local state; joins a running `conman up` there.")]
PortOption = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port of the API; 0 takes a free one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than clients and proxies keep theirs, so that none is closed as it is used."""

USAGE_ERROR = 2
FAILED = 1


def fail(message: str, code: int = FAILED) -> typer.Exit:
    """Say in one line what is wrong and what to do; the exit to raise."""
    err.print(f"[red]conman:[/red] {message}", soft_wrap=True, highlight=False)
    return typer.Exit(code)


def read_settings(**overrides: Any) -> Settings:
    """The settings, or an exit with one line that names every bad variable."""
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        raise fail(str(error), USAGE_ERROR) from error


def joined(data: Path | None, **overrides: Any) -> Settings:
    """The settings; what they leave open comes from a running `conman up` on the data folder."""
    from conman.embedded.running import read_running

    settings = read_settings(data=data, **overrides)
    running = read_running(settings.data)
    if running is None:
        return settings
    known = {
        "mongo_uri": settings.mongo_uri or running.mongo_uri,
        "temporal_address": settings.temporal_address or running.temporal_address,
        "temporal_ui_url": settings.temporal_ui_url or running.temporal_ui_url,
        "secret": settings.secret or running.secret,
        "public_url": settings.public_url or running.api_url,
        "master_keys": settings.master_keys or running.master_keys,
        "codec_keys": settings.codec_keys or running.codec_keys,
        "codec_encrypt": running.codec_encrypt if settings.codec_keys is None else settings.codec_encrypt,
    }
    return read_settings(data=data, **overrides, **known)


def run(work: Callable[[], Coroutine[Any, Any, Any]], *, only_serves: bool = False) -> Any:
    """Run to the end; a failure to start is one line. What only serves HTTP, and never starts a program, runs on uvloop.

    To start a program uvloop forks and runs Python in the child, which waits for ever when a thread of Temporal's SDK or of gRPC
    was being made known to Python just then, and the loop waits for the child (docs/adr/0039).
    """
    from pymongo.errors import PyMongoError
    from temporalio.service import RPCError

    from conman.store.database import StoreError

    try:
        with asyncio.Runner(loop_factory=_uvloop if only_serves else None) as runner:
            return runner.run(work())
    except SettingsError as error:
        raise fail(str(error), USAGE_ERROR) from error
    except StoreError as error:
        raise fail(str(error)) from error
    except PyMongoError as error:
        raise fail(f"MongoDB does not answer; check CONMAN_MONGO_URI ({str(error).splitlines()[0][:160]})") from error
    except (RPCError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "connect" not in str(error).lower():
            raise
        raise fail(f"Temporal does not answer; check CONMAN_TEMPORAL_ADDRESS ({str(error).splitlines()[0][:160]})") from error


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@cli.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Change the configuration kept in Git repositories safely: edit, review, check, release, deploy, roll back."""


@cli.command()
def up(
    data: DataOption = None,
    port: PortOption = None,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", help="Written (0600) when all is ready: addresses and the admin's login, as JSON."),
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Leave the worker out; start one with `conman worker`.")] = False,
) -> None:
    """Run everything on this machine: Temporal, a MongoDB-protocol server, the API and a worker, until Ctrl-C."""
    from conman.embedded.up import run_up

    settings = read_settings(data=data, port=port)

    def progress(line: str) -> None:
        err.print(line, soft_wrap=True, highlight=False, markup=False)

    raise typer.Exit(asyncio.run(run_up(settings, ready_file=ready_file, worker=not no_worker, progress=progress)))


@cli.command()
def api(
    data: DataOption = None,
    port: PortOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
) -> None:
    """Run the HTTP API alone."""
    import uvicorn

    from conman.api.app import create_api, prepare
    from conman.api.streams import ApiServer
    from conman.services.platform import make_platform
    from conman.telemetry import configure_logging

    settings = joined(data, port=port, host=host)

    async def serve() -> None:
        configure_logging(settings)
        platform = await make_platform(settings)
        try:
            await prepare(platform)
            app = create_api(platform)
            config = uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
            )
            server = ApiServer(config, app.state.streams)
            with leaving_when_stuck():
                await server.serve()
            if not server.started:
                raise fail(f"the API could not start on {settings.host}:{settings.port}; see the log line above")
        finally:
            await platform.close()

    run(serve, only_serves=True)


@cli.command()
def worker(
    data: DataOption = None,
    queues: Annotated[
        str | None,
        typer.Option(
            "--queues",
            help="Only these task queues, comma-separated: conman, conman-git, conman-msuite, conman-calls, conman-mail,"
            " conman-webhooks.",
        ),
    ] = None,
) -> None:
    """Run Temporal workers; SIGTERM lets running activities finish first."""
    from conman.telemetry import configure_logging
    from conman.worker import run_worker
    from conman.workflows.options import Queue

    settings = joined(data)
    chosen: set[Queue] | None = None
    if queues is not None:
        known = {queue.value: queue for queue in Queue}
        names = [name.strip() for name in queues.split(",") if name.strip()]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise fail(f"--queues: {', '.join(unknown) or 'nothing'} is unknown; choose from {', '.join(known)}", USAGE_ERROR)
        chosen = {known[name] for name in names}
    configure_logging(settings)

    async def work() -> None:
        with leaving_when_stuck():
            await run_worker(settings, chosen)

    run(work)


@cli.command("git-server")
def git_server(
    data: Annotated[Path | None, typer.Option("--data", help="Folder of all local state.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Written when it listens: address, TLS and process id, as JSON.")
    ] = None,
    like_gitaly_rs: Annotated[
        bool, typer.Option("--like-gitaly-rs", help="Behave as today's gitaly-rs, its stubs included; for tests of clients.")
    ] = False,
) -> None:
    """Serve the local repositories over Gitaly's protocol, so that workers and APIs on several machines share them.

    It serves what is below CONMAN_REPOSITORIES. On the other machines set
    CONMAN_GIT_BACKEND=gitaly, CONMAN_GITALY_ADDRESS=host:port, and
    CONMAN_GITALY_TOKEN to the secret that is CONMAN_GIT_SERVER_TOKEN here.

    Without that secret it listens on this machine only. TLS is on when
    CONMAN_GIT_SERVER_TLS_CERT and CONMAN_GIT_SERVER_TLS_KEY name its files.

    On SIGTERM or SIGINT it takes no new calls, and lets running ones finish
    for at most CONMAN_GIT_SERVER_STOP_SECONDS.
    """
    from conman.git.server import ServerError, ServerOptions
    from conman.git.server_call import ServerFlavour
    from conman.git.server_run import run_git_server
    from conman.telemetry import configure_logging

    settings = read_settings(data=data, git_server_host=host, git_server_port=port)
    configure_logging(settings)
    token = settings.git_server_token
    options = ServerOptions(
        host=settings.git_server_host,
        port=settings.git_server_port,
        token=None if token is None else token.get_secret_value(),
        tls_cert=settings.git_server_tls_cert,
        tls_key=settings.git_server_tls_key,
        flavour=ServerFlavour.GITALY_RS if like_gitaly_rs else ServerFlavour.FULL,
        storage_name=settings.git_server_storage,
        threads=settings.git_threads,
        max_message_mb=settings.git_server_max_message_mb,
        stop_seconds=settings.git_server_stop_seconds,
    )

    def say(line: str) -> None:
        err.print(line, soft_wrap=True, highlight=False, markup=False)

    try:
        run(lambda: run_git_server(settings.repositories_folder, options, ready_file=ready_file, say=say))
    except ServerError as error:
        raise fail(str(error), USAGE_ERROR) from error


@cli.command("codec-server")
def codec_server(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Written when it listens: URL and process id, as JSON.")
    ] = None,
) -> None:
    """Decode for Temporal's Web UI and CLI what CONMAN_CODEC_KEYS encrypt, for people who may read it.

    They show CONMAN_CODEC_SERVER_TOKEN: as bearer token, or as password in a
    browser that opened this server's address once. Without that token it
    listens on this machine only, and serves whoever asks there.

    Pages of the Web UI may call when CONMAN_CODEC_SERVER_ORIGINS, or
    CONMAN_TEMPORAL_UI_URL, names their origin.

    On SIGTERM or SIGINT it takes no new requests, and lets running ones finish
    for at most CONMAN_CODEC_SERVER_STOP_SECONDS.
    """
    from conman.codec_server import CodecServerError
    from conman.codec_server_run import codec_server_options, run_codec_server
    from conman.telemetry import configure_logging
    from conman.workflows.codec import KeyringCodec

    settings = joined(data, codec_server_host=host, codec_server_port=port)
    configure_logging(settings)
    codec = KeyringCodec(settings.codec_keyring, encrypt=settings.codec_encrypt)

    def say(line: str) -> None:
        err.print(line, soft_wrap=True, highlight=False, markup=False)

    try:
        run(lambda: run_codec_server(codec, codec_server_options(settings), ready_file=ready_file, say=say), only_serves=True)
    except CodecServerError as error:
        raise fail(str(error), USAGE_ERROR) from error


@cli.command("codec-keys")
def codec_keys(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Read every history that Temporal keeps and say which codec keys they need; a key that none needs may go."""
    from conman.services.payload_keys import KeyUse, keys_in_use
    from conman.workflows.client import connect
    from conman.workflows.codec import KeyringCodec

    settings = joined(data)
    address = settings.temporal_address
    if address is None:
        raise fail("CONMAN_TEMPORAL_ADDRESS: give it, or join a running `conman up` with --data DIR", USAGE_ERROR)

    async def work() -> list[KeyUse]:
        return await keys_in_use(await connect(address, settings.temporal_namespace, KeyringCodec({})))

    uses = run(work)
    if as_json:
        out.print_json(json.dumps([use.as_dict() for use in uses]))
        return
    table = Table("Key", "Here", "Open runs", "Closed runs", "For instance", box=None, pad_edge=False)
    for use in uses:
        here = "" if use.key_id is None else "yes" if use.key_id in settings.codec_keyring else "missing"
        shown = "(plain)" if use.key_id is None else use.key_id
        table.add_row(shown, here, str(use.open_runs), str(use.closed_runs), ", ".join(use.examples))
    for key_id in settings.codec_keyring:
        if key_id not in {use.key_id for use in uses}:
            table.add_row(key_id, "yes", "0", "0", "")
    out.print(table)


@cli.command(help=MSUITE_HELP)
def msuite(
    path: Annotated[Path, typer.Argument(help="Folder with the configuration files.")] = Path(),
    report: Annotated[
        Path | None, typer.Option("--report", envvar="MSUITE_REPORT", help="Write the findings as JSON to this file.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="What is printed: lines, the report as JSON, or annotations of GitHub Actions.")
    ] = Form.TEXT,
) -> None:
    """Check configuration files; the suite itself has the help."""
    from conman.msuite import run as check

    raise typer.Exit(check(path, report, sys.stdout, form))


@cli.command()
def config(as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show the effective configuration, secrets masked, and where each value comes from."""
    from conman.configuration import effective_rows

    rows = effective_rows(read_settings(data=data), {"data"} if data is not None else set())
    if as_json:
        out.print_json(json.dumps([row.as_dict() for row in rows]))
        return
    table = Table("Variable", "Value", "From", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.variable, row.value, row.source)
    out.print(table)


@cli.command()
def doctor(as_json: JsonOption = False, data: DataOption = None) -> None:
    """Check the configuration and every component, and say what to mend. Exit 0 when all is well, 1 else."""
    from conman.doctor import examine

    findings = run(lambda: examine(joined(data)))
    if as_json:
        out.print_json(json.dumps([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            mark = "[green]ok[/green]  " if finding.ok else "[red]mend[/red]"
            out.print(f"{mark} {finding.component}: {finding.message}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED)


@cli.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit at the end instead of staying up.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the demo's state; by default `demo` below the usual one.")
    ] = None,
) -> None:
    """Run the main job on real configuration files, step by step, on a stack of its own."""
    from conman.demo import run_demo

    settings = read_settings(data=data)
    if data is None:
        settings = settings.model_copy(update={"data": settings.data / "demo"})
    raise typer.Exit(asyncio.run(run_demo(settings, once=once, console=out)))


@cli.command()
def reconcile(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Deliver what crashes left behind, start the workflows that records call for, and bring records and workflows that differ
    together, as after a restored backup; safe at any time.
    """
    from conman.activities.reconcile import reconcile_once
    from conman.services.platform import make_platform

    settings = joined(data)

    async def work() -> dict[str, int]:
        platform = await make_platform(settings)
        try:
            return await reconcile_once(platform.db, platform.commands, platform.git)
        finally:
            await platform.close()

    found = run(work)
    if as_json:
        out.print_json(json.dumps(found))
    else:
        text = f"{found['delivered']} entries delivered, {found['started']} workflows started"
        out.print(f"{text}, {found['resynced']} told that their record differs", highlight=False, soft_wrap=True)


@admin.command("create")
def admin_create(
    email: Annotated[str, typer.Option("--email", prompt=True, help="The account's email.")],
    name: Annotated[str, typer.Option("--name", help="The person's name.")] = "Platform admin",
    password: Annotated[
        str, typer.Option("--password", prompt=True, confirmation_prompt=True, hide_input=True, help="12 to 128 characters.")
    ] = "",
    data: DataOption = None,
) -> None:
    """Make a platform admin, or make an existing account one."""
    from conman.domain.errors import DomainError
    from conman.services.call import system_call
    from conman.services.platform_admins import make_platform_admin
    from conman.store.database import connect, ensure_indexes

    settings = joined(data)
    uri = settings.mongo_uri
    if uri is None:
        raise fail("CONMAN_MONGO_URI: give it, or join a running `conman up` with --data DIR", USAGE_ERROR)

    async def work() -> str:
        db = connect(uri)[settings.mongo_database]
        try:
            await ensure_indexes(db)
            return await make_platform_admin(db, system_call("command-line"), email, name, password, via="command_line")
        finally:
            await db.client.close()

    try:
        out.print(run(work), highlight=False)
    except DomainError as error:
        raise fail(error.message, USAGE_ERROR) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    run_to_exit(lambda: cli(args=list(arguments) if arguments is not None else None))
