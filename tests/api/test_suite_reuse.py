"""What a client sees of a suite's result that was reused (`spec.md` 9 and 11)."""

from __future__ import annotations

from typing import Any

from tests.support.conman_stack import World, assert_error

FILES = {"entities/same.json": '{"value": "the same in each"}\n'}


async def judged(world: World) -> dict[str, Any]:
    """The ended gate of a changeset that holds what every other one holds."""
    changeset = await world.ann.get(await world.submitted(FILES))
    assert set(changeset["gate"]) == {"state", "job_id", "reason_code"}
    return await world.job(changeset["gate"]["job_id"])


async def log(world: World, job: dict[str, Any]) -> list[str]:
    return [line["text"] for line in (await world.ann.get(f"{world.path}/jobs/{job['id']}/logs"))["lines"]]


async def test_a_gate_says_whose_result_it_took_over_until_the_app_turns_that_off(own: World) -> None:
    first, second = await judged(own), await judged(own)
    assert "reused_from" not in first["summary"]
    assert (second["state"], second["reason_code"], second["exit_code"]) == ("succeeded", "ok", 0)
    assert second["summary"]["reused_from"] == first["id"]
    assert second["summary"]["report"] == first["summary"]["report"]
    assert second["queued_at"] <= second["started_at"] <= second["finished_at"]
    (line,) = await log(own, second)
    assert line.startswith("Reused: ")
    assert first["id"] in line
    await own.set(validation_gates={"submit": {"command": "msuite", "reuse": False}})
    third = await judged(own)
    assert "reused_from" not in third["summary"]
    assert not any(line.startswith("Reused: ") for line in await log(own, third))
    version = (await own.eve.get(own.path))["version"]
    for wrong in ("false", None, 0):
        gate = {"command": "msuite", "reuse": wrong}
        body = {"validation_gates": {"submit": gate}, "version": version}
        assert_error(await own.eve.send("PATCH", f"{own.path}/settings", json=body), 400, "validation_error")
