"""Target programs and health commands as real processes: the contract, and what goes wrong (`spec.md` 12, docs/targets.md)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from conman.domain.messages import SwitchRequest
from conman.domain.target import WITHHELD, secret_digest
from conman.targets.base import TargetError
from tests.services.places import KEY, TOKEN, Site, is_running
from tests.services.shop import Shop
from tests.support.crashes import crash_at

PROFILE = {
    "env_vars": {"MODE": {"type": "string", "value": "calm"}},
    "secrets": {"TOKEN": TOKEN},
    "base_url": "https://qa.example.com",
}

WORKING = """
import hashlib, hmac, pathlib, shutil
order = json.load(sys.stdin)
place = pathlib.Path(__file__).parent / "live"
seen = place / "orders.jsonl"
place.mkdir(exist_ok=True)
action = sys.argv[-1]
assert action == order["action"] and order["contract"] == 1
with seen.open("a") as file:
    print(json.dumps(order), file=file)
if action == "deploy":
    last = place / "fence"
    if last.exists() and int(last.read_text()) > order["fence"]:
        sys.exit("a later deployment is in place")
    files = pathlib.Path(order["files"])
    modes = [oct(os.stat(order[name]).st_mode & 0o777) for name in ("profile_env", "profile_json")]
    (place / "modes").write_text(" ".join(modes))
    (place / "profile.json").write_text(pathlib.Path(order["profile_json"]).read_text())
    shutil.copytree(files, place / "files", dirs_exist_ok=True)
    last.write_text(str(order["fence"]))
    print("copied", pathlib.Path(order["profile_env"]).read_text(), file=sys.stderr)
    message = "copied with " + os.environ.get("MODE", "no profile in the environment")
    json.dump({"folder": str(place), "message": message}, sys.stdout)
elif action == "observe":
    profile = json.loads((place / "profile.json").read_text())
    key = bytes.fromhex(order["digest_key"])
    digests = {n: hmac.new(key, v.encode(), hashlib.sha256).hexdigest() for n, v in profile["secrets"].items()}
    variables = {n: profile["env_vars"][n]["value"] for n in order["env_var_names"]}
    variables["COPY"] = "it holds " + profile["secrets"]["TOKEN"]
    print("looking", profile["secrets"]["TOKEN"], file=sys.stderr)
    json.dump({"env_vars": variables, "secrets": digests, "commit_sha": order["commit_sha"], "base_url": None}, sys.stdout)
else:
    message = "it says " + open(order["profile_env"]).read()
    json.dump({"healthy": (place / "files" / "a.json").read_text() == "{}", "message": message}, sys.stdout)
"""


@pytest.fixture
async def site(shop: Shop, tmp_path: Path) -> AsyncIterator[Site]:
    async with shop.platform() as platform:
        made = Site(shop, platform, tmp_path)
        await made.define(deploy_target="own")
        yield made


async def asked(site: Site) -> SwitchRequest:
    return await site.ask(await site.commit({"a.json": "{}"}), await site.revise(**PROFILE))


def orders(site: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (site.folder / "live" / "orders.jsonl").read_text().splitlines()]


async def test_a_program_deploys_observes_and_tells_the_health(site: Site) -> None:
    site.program("own", "target", WORKING)
    request = await asked(site)
    reply = await site.switch(request)
    assert (reply.folder, reply.files) == (str(site.folder / "live"), len(list((site.folder / "live" / "files").iterdir())))
    assert (site.folder / "live" / "modes").read_text() == "0o600 0o600"
    order = orders(site)[0]
    assert (order["deployment_id"], order["fence"], order["tag"]) == (request.deployment_id, request.fence, request.tag)
    assert (order["app"]["name"], order["environment"]) == ("shop", {"id": "qa", "name": "QA"})
    await site.shown(request)
    seen = await site.observe()
    assert seen.env_vars == {"MODE": "calm", "COPY": WITHHELD}
    assert seen.secrets == {"TOKEN": secret_digest(KEY, TOKEN)}
    assert (seen.files, seen.observes_base_url, seen.base_url) == (request.commit_sha, True, None)
    found = await site.verify(request)
    assert found.healthy
    log = await site.log(request)
    assert "copied with no profile in the environment" in log
    assert "TOKEN='****'" in log
    assert TOKEN not in log + found.message + json.dumps(orders(site))
    assert site.scratch == []


async def test_the_program_of_the_documentation_does_what_is_asked(site: Site) -> None:
    text = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    file = site.folder / "place.py"
    file.write_text(text.split("```python\n")[1].split("```")[0])
    argv = json.dumps([sys.executable, str(file), str(site.folder / "srv")])
    site.commands["own"] = f'[own]\nkind = "target"\nargv = {argv}\n'
    first = await asked(site)
    assert (await site.verify(first)).healthy is False
    reply = await site.switch(first)
    assert reply.folder == str(site.folder / "srv" / "QA" / "current")
    assert (site.folder / "srv" / "QA" / "current" / "files" / "a.json").read_text() == "{}"
    await site.shown(first)
    seen = await site.observe()
    assert (seen.secrets, seen.base_url) == ({"TOKEN": secret_digest(KEY, TOKEN)}, "https://qa.example.com")
    assert (seen.files, seen.env_vars) == (first.commit_sha, None)
    second = await asked(site)
    assert await site.switch(second) == await site.switch(second)
    assert (await site.verify(second)).healthy
    await site.db["locks"].update_one({}, {"$set": {"environments.qa.fence": first.fence}})  # The program is the last to notice.
    with pytest.raises(ApplicationError, match="exit code 1"):
        await site.switch(first)
    assert f"fence {second.fence} is in place" in await site.log(first)


async def test_a_worker_that_dies_between_sends_the_same_order_again(site: Site) -> None:
    site.program("own", "target", WORKING)
    request = await asked(site)
    with crash_at("target.exported"):
        await site.switch(request)
    assert not (site.folder / "live").exists()
    with crash_at("target.deployed"):
        await site.switch(request)
    assert (await site.switch(request)).files
    first, again = orders(site)
    same = ("deployment_id", "fence", "commit_sha", "profile_revision_id")
    assert [first[name] for name in same] == [again[name] for name in same]


async def test_a_deployment_that_lost_the_environment_starts_no_program(site: Site) -> None:
    site.program("own", "target", WORKING)
    late = await asked(site)
    await asked(site)
    with pytest.raises(ApplicationError, match="A later deployment") as refused:
        await site.switch(late)
    assert refused.value.type == "fenced"
    assert not (site.folder / "live").exists()


FAILURES = {
    "garbage": (
        "print('deployed ' + open(json.load(sys.stdin)['profile_env']).read())",
        "breaks the contract: it is no JSON",
        True,
    ),
    "nothing": ("pass", "breaks the contract: it is empty", True),
    "a flood": ("while True: print('x' * 65536)", "answer is over 1048576 bytes", True),
    "a code": ("sys.exit('no cluster')", "ended with exit code 1; see the job's log", True),
    "not now": ("sys.exit(75)", "ended with exit code 75", False),
    "a signal": ("os.kill(os.getpid(), signal.SIGUSR1)", "ended with signal 10", True),
    "a hang": ("time.sleep(600)", "took longer than 1.5 s", True),
    "a hang that will not end": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(__file__ + '.pid', 'w').write(str(os.getpid()))\n"
        "while True: time.sleep(1)",
        "took longer than 1.5 s",
        True,
    ),
    "a secret as the answer": (
        "print(json.dumps(json.load(open(json.load(sys.stdin)['profile_json']))['secrets']))",
        "does not know",
        True,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_program_that_fails_says_how_and_leaves_nothing(site: Site, case: str) -> None:
    code, message, final = FAILURES[case]
    site.limits = {"target_timeout_seconds": 1.5}
    site.program("own", "target", code)
    request = await asked(site)
    with pytest.raises(ApplicationError) as failed:
        await site.switch(request)
    assert message in failed.value.message
    assert failed.value.non_retryable == final
    assert TOKEN not in failed.value.message
    log = await site.log(request)
    assert message in log
    assert TOKEN not in log
    assert site.scratch == []
    pid = site.folder / "own.py.pid"
    assert not pid.exists() or not is_running(pid)


async def test_a_program_that_is_not_there_may_be_on_another_worker(site: Site) -> None:
    site.commands["own"] = '[own]\nkind = "target"\nargv = ["/nowhere/deploy"]\n'
    with pytest.raises(ApplicationError, match="could not be started") as failed:
        await site.switch(await asked(site))
    assert (failed.value.type, failed.value.non_retryable) == ("runner_error", False)


async def test_what_cant_be_observed_is_a_problem_and_never_a_report(site: Site) -> None:
    site.program("own", "target", WORKING)
    request = await asked(site)
    await site.switch(request)
    await site.shown(request)
    site.program("own", "target", f"print('no route, {TOKEN}', file=sys.stderr); sys.exit(3)")
    with pytest.raises(TargetError, match=r"could not observe: its program ended with exit code 3: no route, \*\*\*\*"):
        await site.observe()
    site.program("own", "target", 'print(\'{"secrets": {"TOKEN": "plain"}}\')')
    with pytest.raises(TargetError, match="answer to observe breaks the contract"):
        await site.observe()


async def test_a_program_that_cant_tell_the_health_gives_no_verdict(site: Site) -> None:
    site.program("own", "target", WORKING)
    request = await asked(site)
    await site.switch(request)
    (site.folder / "live" / "files" / "a.json").write_text("[]")
    assert not (await site.verify(request)).healthy
    site.program("own", "target", "sys.exit(75)")
    with pytest.raises(ApplicationError, match="could not tell the health") as failed:
        await site.verify(request)
    assert failed.value.type == "infrastructure"


CHECK = """
order = json.load(sys.stdin)
assert order["action"] == "health" and order["fence"] == int(os.environ["CONMAN_FENCE"])
print("looking at", os.environ["CONMAN_ENVIRONMENT"], os.environ["CONMAN_BASE_URL"], os.environ["TOKEN"])
print(os.listdir(os.environ["CONMAN_FOLDER"]), oct(os.stat(os.environ["CONMAN_PROFILE_JSON"]).st_mode & 0o777))
"""


async def healthy(site: Site, code: str) -> SwitchRequest:
    await site.define(deploy_target="directory", health_command="check")
    site.program("check", "health", code)
    request = await asked(site)
    await site.switch(request)
    return request


async def test_the_health_command_sees_the_environment_and_decides(site: Site) -> None:
    request = await healthy(site, CHECK)
    found = await site.verify(request)
    assert (found.healthy, found.message) == (True, "looking at QA https://qa.example.com ****")
    log = await site.log(request)
    assert "'profile'" in log
    assert "0o600" in log
    assert TOKEN not in log
    site.program("check", "health", "print(); print('503 from /live'); sys.exit(1)")
    found = await site.verify(request)
    assert (found.healthy, found.message) == (False, "503 from /live")
    site.limits = {"health_timeout_seconds": 1}
    site.program("check", "health", "time.sleep(600)")
    found = await site.verify(request)
    assert not found.healthy
    assert "took longer than 1 s" in found.message


async def test_no_profile_decides_which_code_the_operators_program_loads(site: Site) -> None:
    given = {name: {"type": "string", "value": "/nowhere"} for name in ("PATH", "LD_PRELOAD", "PYTHONPATH", "MODE")}
    await site.define(deploy_target="directory", health_command="check")
    site.commands["check"] = '[check]\nkind = "health"\nargv = ["env"]\n'
    request = await site.ask(await site.commit({"a.json": "{}"}), await site.revise(**{**PROFILE, "env_vars": given}))
    await site.switch(request)
    assert (await site.verify(request)).healthy, "it is found by the worker's own PATH"
    log = await site.log(request)
    assert "MODE=/nowhere" in log
    assert not [name for name in ("PATH", "LD_PRELOAD", "PYTHONPATH") if f"{name}=/nowhere" in log.splitlines()]


@pytest.mark.parametrize("argv", ['["/nowhere/check"]', None])
async def test_a_health_command_that_cant_be_run_is_no_verdict(site: Site, argv: str | None) -> None:
    request = await healthy(site, CHECK)
    if argv is None:
        del site.commands["check"]
    else:
        site.commands["check"] = f'[check]\nkind = "health"\nargv = {argv}\n'
    with pytest.raises(ApplicationError) as failed:
        await site.verify(request)
    assert failed.value.type == "runner_error"


async def test_a_broken_folder_is_found_before_the_health_command_is_asked(site: Site) -> None:
    request = await healthy(site, "open(__file__ + '.ran', 'w')")
    (site.home / "current" / "files" / "a.json").write_text("[]")
    assert not (await site.verify(request)).healthy
    assert not (site.folder / "check.py.ran").exists()


async def test_a_cancel_ends_the_program_with_all_its_processes(site: Site) -> None:
    site.program("own", "target", "open(__file__ + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    request = await asked(site)
    running = asyncio.create_task(site.switch(request))
    pid = site.folder / "own.py.pid"
    async with asyncio.timeout(30):
        while not pid.exists() or not pid.read_text():  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_running(pid)
    assert site.scratch == []
