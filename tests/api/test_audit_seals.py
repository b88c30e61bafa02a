"""Events of an app are sealed, verified over HTTP and by the command, exported, and prove a release (`spec.md` 14 and 15)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from conman.git.local import LocalGit
from conman.services.audit_anchor import anchor_all
from conman.services.clock import now
from conman.services.sealing import seal_all
from tests.support.conman_stack import World


async def conman(world: World, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, as an operator runs it beside the stack."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")} | {"COLUMNS": "400"}
    command = [sys.executable, "-m", "conman", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


async def test_a_release_is_sealed_verified_exported_and_proved(own: World, tmp_path: Path) -> None:
    """Two suites and four runs of the command: about 10 s on a quiet machine."""
    release = await own.published()
    tag = (await own.max.get(release))["tag"]
    stack = own.stack
    data = str(stack.data)
    git = LocalGit(stack.data / "repositories", 2)
    # What the schedule does twice a minute, at once.
    while not await stack.db["audit_seals"].find_one({"chain": own.app["id"]}) or await seal_all(stack.db, now()):
        await seal_all(stack.db, now())
    await anchor_all(stack.db, git, now())
    git.close()

    events = await own.audit()
    sealed = [event for event in events if event["seq"] is not None]
    assert [event["seq"] for event in sorted(sealed, key=lambda one: one["seq"])] == list(range(1, len(sealed) + 1))
    assert all(len(event["hash"]) == 64 for event in sealed)
    found = await own.eve.get(f"{own.path}/audit/verify")
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["checked"] == found["sealed_to"] >= len(sealed)

    name = own.app["name"]
    verified = await conman(own, "audit", "verify", "--app", name, "--data", data, "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["chains"][0]["ok"]

    copy = tmp_path / "audit.jsonl"
    exported = await conman(own, "audit", "export", "--app", name, "--data", data, "--out", str(copy))
    assert exported.returncode == 0, exported.stderr
    whole = copy.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["id"] for line in lines] == sorted(event["id"] for event in events)
    assert {line["id"]: line["hash"] for line in lines} == {event["id"]: event["hash"] for event in events}
    copy.write_bytes(whole[: len(whole) // 2])
    again = await conman(own, "audit", "export", "--app", name, "--data", data, "--out", str(copy), "--resume")
    assert again.returncode == 0, again.stderr
    assert copy.read_bytes() == whole

    proof = tmp_path / f"{tag}.proof.json"
    proved = await conman(own, "prove", tag, "--app", name, "--data", data, folder=tmp_path)
    assert proved.returncode == 0, proved.stderr
    repository = str(stack.data / "repositories" / own.app["repo_path"])
    checked = await conman(own, "prove", "--check", str(proof), "--repository", repository, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert any("2 gates have passed" in one and "2 on the trees" in one for one in json.loads(checked.stdout)["proved"])
    shown = json.loads(proof.read_text())
    assert [vote["reviewer_user_id"] for vote in shown["members"][0]["votes"]] == [own.rob.id]
    assert {gate["job_type"] for gate in shown["gates"]} >= {"msuite_submit", "msuite_merge"}
    assert all(len(gate["tree_id"]) == 40 for gate in shown["gates"])
    proof.write_text(proof.read_text().replace(own.rob.id, own.eve.id))
    assert (await conman(own, "prove", "--check", str(proof))).returncode == 1

    await stack.db["audit"].update_one({"_id": sealed[0]["id"]}, {"$set": {"actor_user_id": own.stranger.id}})
    found = await own.eve.get(f"{own.path}/audit/verify")
    assert [(one["event_id"], one["seq"], one["kind"]) for one in found["problems"]] == [
        (sealed[0]["id"], sealed[0]["seq"], "changed")
    ]
    told = await conman(own, "audit", "verify", "--app", name, "--data", data)
    assert (told.returncode, f"changed: {name}" in told.stderr) == (1, True)
