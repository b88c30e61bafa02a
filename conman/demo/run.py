"""The demo from start to end: its stack, its walk, its signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from conman.config import Settings
from conman.demo.child import Addresses, Child
from conman.demo.show import DemoError, Steps
from conman.demo.walk import Result, Walk
from conman.demo_data import DatasetError, dataset_files, fetch_dataset
from conman.embedded.cache import default_folder

_INTERRUPTED = 130
_NAMESPACE = Settings.model_fields["temporal_namespace"].default
_LAST_WORD_SECONDS = 1.0


class _Stop:
    """SIGINT, SIGTERM and SIGHUP as two events: the first asks to stop in order, the second to stop at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.again = asyncio.Event()

    def _received(self) -> None:
        (self.again if self.asked.is_set() else self.asked).set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is ignored under nohup, and must stay so
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._received)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def run_demo(settings: Settings, *, once: bool, console: Console) -> int:
    """Walk the main job on a stack of its own in `settings.data`; then stay up until a signal, or end when `once`.

    The exit code is 0 when the release reached every environment and the broken changeset was stopped, 130 when a
    signal came before that, and 1 after one line that says what failed. Its `conman up` never outlives it.
    """
    steps, stop = Steps(console), _Stop()
    child = Child(settings, lambda line: steps.note(f"up: {line}"))
    passed = asyncio.Event()
    with stop.listening():
        hurry = asyncio.create_task(_hurry(stop, child))
        walk = asyncio.create_task(_walk(settings, steps, child, passed, once=once))
        asked, death = asyncio.create_task(stop.asked.wait()), asyncio.create_task(child.wait())
        try:
            await asyncio.wait({walk, asked, death}, return_when=asyncio.FIRST_COMPLETED)
            if walk.done() and walk.exception() is not None:
                await asyncio.wait({death}, timeout=_LAST_WORD_SECONDS)  # the cause may be that the stack has gone
            if asked.done():
                return 0 if passed.is_set() else _INTERRUPTED
            if death.done():
                raise DemoError(death.result())
            await walk
            return 0
        except DemoError as error:
            steps.failed(str(error))
            return 1
        finally:
            for task in (walk, asked, death):
                task.cancel()
            await asyncio.wait({walk, asked, death})
            await child.stop()
            hurry.cancel()


async def _hurry(stop: _Stop, child: Child) -> None:
    await stop.again.wait()
    child.ask_to_stop()


async def _walk(settings: Settings, steps: Steps, child: Child, passed: asyncio.Event, *, once: bool) -> None:
    """Everything that the demo shows. Raises `DemoError`."""
    data = settings.data.resolve()
    steps.heading(f"A stack of its own in {data}")
    with steps.step("have the dataset") as step:
        dataset = await _dataset(steps)
        step.said = f"{len(dataset_files(dataset))} real configuration files are at hand: {dataset.name}, a published package"
    with tempfile.TemporaryDirectory(prefix="conman-demo-") as private, steps.step("start conman up") as step:
        stack = await child.start(Path(private) / "ready.json")
        step.said = f"conman up is ready: {stack.api_url}"
    result = await Walk(steps, stack, data, dataset).walk()
    passed.set()
    _summary(steps, stack, data, result, password_given=settings.admin_password is not None)
    if not once:
        steps.plain("Have a look around; Ctrl-C stops everything.")
        await asyncio.Event().wait()


async def _dataset(steps: Steps) -> Path:
    try:
        return await asyncio.to_thread(fetch_dataset, default_folder() / "demo", steps.note)
    except (DatasetError, OSError) as error:
        raise DemoError(str(error)) from error


def _summary(steps: Steps, stack: Addresses, data: Path, result: Result, *, password_given: bool) -> None:
    """Where to look next."""
    password = "CONMAN_ADMIN_PASSWORD" if password_given else str(data / "keys" / "admin.json")
    steps.done(f"release {result.tag} is {result.state}, and the broken changeset is {result.broken_state}")
    steps.fact("Release", result.tag)
    steps.fact("Deployed folder", str(result.folder))
    steps.fact("API and its docs", f"{stack.api_url}/api/docs")
    steps.fact("Temporal's Web UI", f"{stack.temporal_ui_url}/namespaces/{_NAMESPACE}/workflows")
    steps.fact("Admin", f"{stack.admin_email}, the password is in {password}")
    steps.fact("Ann, Rob and Max", f"{', '.join(result.emails)}, their password is in {os.fspath(result.password_file)}")
