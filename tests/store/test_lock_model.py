"""Random histories of locks and lines against a model that is a few lists; some 5 seconds on a quiet machine."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conman.store import locks
from conman.store.database import connect

AT = "2026-01-31T09:30:00.000Z"
ENVIRONMENTS = ["a", "b", "c"]
_environment = st.sampled_from(ENVIRONMENTS)
_pick = st.integers(0, 10)


@dataclass
class Place:
    """An environment as it should be: who holds it (if alive), and who waits."""

    fence: int = 0
    holder: str | None = None
    line: list[str] = field(default_factory=list[str])


def test_locks_do_what_a_few_lists_would(mongo_uri: str) -> None:
    class Machine(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.loop = asyncio.new_event_loop()
            self.client = connect(mongo_uri)
            self.db = self.client["lock_model"]
            self.app = uuid.uuid4().hex
            self.places = {name: Place() for name in ENVIRONMENTS}
            self.alive: set[str] = set()
            self.running: set[str] = set()

        def teardown(self) -> None:
            if hasattr(self, "loop"):
                self.loop.run_until_complete(self.client.close())
                self.loop.close()

        def do(self, awaitable: Any) -> Any:
            return self.loop.run_until_complete(awaitable)

        def fresh(self) -> str:
            name = uuid.uuid4().hex
            self.do(self.db["deployments"].insert_one({"_id": name, "owned": {"state": "pending"}}))
            self.alive.add(name)
            return name

        def holder(self, name: str) -> str | None:
            held_by = self.places[name].holder
            return held_by if held_by in self.alive else None

        def line(self, name: str) -> list[str]:
            return [one for one in self.places[name].line if one in self.alive]

        def in_the_way(self, name: str) -> str | None:
            return self.holder(name) or next(iter(self.line(name)), None)

        def give(self, name: str, deployment: str) -> None:
            place = self.places[name]
            place.fence += 1
            place.holder, place.line = deployment, [one for one in self.line(name) if one != deployment]

        @rule(names=st.sets(_environment, min_size=1))
        def ask_for(self, names: set[str]) -> None:
            wanted = {name: self.fresh() for name in sorted(names)}
            taken = self.do(locks.take(self.db, self.app, wanted, AT))
            first = next((found for name in wanted if (found := self.in_the_way(name)) is not None), None)
            assert (taken.holder.deployment_id if taken.holder is not None else None) == first
            if first is None:
                for name, deployment in wanted.items():
                    self.give(name, deployment)
                assert taken.fences == {name: self.places[name].fence for name in wanted}
            else:
                assert taken.fences == {}
                self.alive -= set(wanted.values())

        @rule(name=_environment)
        def wait_for(self, name: str) -> None:
            deployment = self.fresh()
            taken = self.do(locks.take(self.db, self.app, {name: deployment}, AT, wait=True))
            if self.in_the_way(name) is None:
                self.give(name, deployment)
                assert taken.fences == {name: self.places[name].fence}
            else:
                assert taken.waits
                self.places[name].line = [*self.line(name), deployment]

        @rule(name=_environment)
        def take_over(self, name: str) -> None:
            old, deployment = self.holder(name), self.fresh()
            taken = self.do(locks.take(self.db, self.app, {name: deployment}, AT, over=[old] if old is not None else []))
            may = old not in self.running and not self.line(name) if old is not None else self.in_the_way(name) is None
            assert (taken.holder is None) == may
            if may:
                self.give(name, deployment)
                assert taken.superseded == ({name: old} if old is not None else {})
            else:
                self.alive.discard(deployment)

        @rule(name=_environment)
        def start(self, name: str) -> None:
            deployment = self.holder(name)
            if deployment is not None:
                assert self.do(locks.mark_running(self.db, self.app, name, deployment))
                self.running.add(deployment)

        @rule(name=_environment, number=_pick, gives_up=st.booleans())
        def end(self, name: str, number: int, gives_up: bool) -> None:
            there = [one for one in (self.holder(name), *self.line(name)) if one is not None]
            if not there:
                return
            deployment = there[number % len(there)]
            self.do(self.db["deployments"].update_one({"_id": deployment}, {"$set": {"owned.state": "canceled"}}))
            self.alive.discard(deployment)
            if gives_up:
                told = self.do(locks.release(self.db, self.app, name, deployment, AT))
                held = self.places[name].holder == deployment
                expected = next(iter(self.line(name)), None) if held else None
                assert told == expected
                if held:
                    self.places[name].holder = None
                if expected is not None:
                    self.give(name, expected)

        @rule(name=_environment)
        def hand_on(self, name: str) -> None:
            told = self.do(locks.advance(self.db, self.app, name, AT))
            expected = next(iter(self.line(name)), None) if self.holder(name) is None else None
            assert told == expected
            if expected is not None:
                self.give(name, expected)

        @invariant()
        def is_as_the_model(self) -> None:
            if not hasattr(self, "db"):
                return
            entries = self.do(locks.read(self.db, self.app))
            active = self.do(locks.active_in(self.db, entries, AT))
            for name, place in self.places.items():
                entry = entries.get(name, {"fence": 0})
                assert entry["fence"] == place.fence
                assert (active[name].deployment_id if name in active else None) == self.in_the_way(name)
                line = self.do(locks.line(self.db, entry, AT))
                assert [one["deployment_id"] for one in line] == self.line(name)

    found = settings(
        max_examples=15, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(Machine, settings=found)
