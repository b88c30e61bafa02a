"""The `directory` target on a real folder: whole for every reader, fenced, and observed as it is (`spec.md` 12)."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from conman.domain.messages import SwitchRequest
from conman.domain.target import WITHHELD, Observation, secret_digest
from conman.services.vault import Vault
from conman.targets.base import TargetError
from conman.targets.registry import Targets
from tests.services.places import KEY, TOKEN, Site
from tests.services.shop import Shop

FILES = ("a.json", "folder/b.json", "folder/deep/c.json")
PROFILE = {
    "env_vars": {"MODE": {"type": "string", "value": "calm"}, "PORT": {"type": "number", "value": 8080}},
    "secrets": {"TOKEN": TOKEN, "PIN": "47"},
    "base_url": "https://qa.example.com",
    "database": {"engine": "mongodb", "connection_ref": "TOKEN", "provisioning_mode": "existing"},
}


@pytest.fixture
async def site(shop: Shop, tmp_path: Path) -> AsyncIterator[Site]:
    async with shop.platform() as platform:
        made = Site(shop, platform, tmp_path)
        await made.define()
        yield made


async def deployed(site: Site, **profile: object) -> SwitchRequest:
    commit_sha = await site.commit(dict.fromkeys(FILES, "{}\n"))
    request = await site.ask(commit_sha, await site.revise(**{**PROFILE, **profile}))
    await site.switch(request)
    await site.shown(request)
    return request


async def test_a_reader_never_sees_a_mix_of_two_deployments(site: Site) -> None:
    """A reader resolves `current` once, and reads files and profile from there, again and again while it is switched."""
    await numbered(site, 0)
    over = threading.Event()
    seen: list[tuple[str, ...]] = []

    def read() -> None:
        while not over.is_set():
            there = (site.home / "current").resolve()
            texts = [(there / "files" / path).read_text() for path in FILES]
            texts.append((there / "profile" / "profile.env").read_text().removeprefix("NUMBER='").removesuffix("'\n"))
            texts.append(str(json.loads((there / "profile" / "profile.json").read_text())["env_vars"]["NUMBER"]["value"]))
            seen.append(tuple(texts))

    reader = asyncio.create_task(asyncio.to_thread(read))
    try:
        for number in range(1, 12):
            await numbered(site, number)
    finally:
        over.set()
        await reader
    assert all(len(set(texts)) == 1 for texts in seen)
    assert len(set(seen)) > 1, "it was read while it was switched"


async def numbered(site: Site, number: int) -> None:
    commit_sha = await site.commit(dict.fromkeys(FILES, f"{number}"))
    variables = {"NUMBER": {"type": "number", "value": number}}
    await site.switch(await site.ask(commit_sha, await site.revise(env_vars=variables)))


async def test_the_profile_is_for_its_owner_alone(site: Site) -> None:
    await deployed(site)
    profile = (site.home / "current" / "profile").resolve()
    assert oct(profile.stat().st_mode & 0o777) == "0o700"
    assert {oct(path.stat().st_mode & 0o777) for path in profile.iterdir()} == {"0o600"}


async def test_a_deployment_that_lost_the_environment_changes_nothing(site: Site) -> None:
    late = await deployed(site)
    latest = await deployed(site)
    with pytest.raises(ApplicationError, match="A later deployment") as refused:
        await site.switch(late)
    assert (refused.value.type, refused.value.non_retryable) == ("fenced", True)
    assert (site.home / "current").resolve().name == f"{latest.fence:06d}-{latest.tag}"


async def test_an_attempt_that_was_given_up_between_its_check_and_its_switch_is_followed_by_the_later_one(site: Site) -> None:
    revision = await site.revise(**PROFILE)
    slow = await site.ask(await site.commit({"a.json": "1"}), revision)
    targets = Targets(site.settings, site.db, site.platform.git, Vault.of(site.keyring))
    order = await targets.order(slow, silent)
    late: list[tuple[SwitchRequest, asyncio.Task[object]]] = []

    async def holds() -> None:
        await order.still_holds()
        later = await site.ask(await site.commit({"a.json": "2"}), revision)
        late.append((later, asyncio.create_task(site.switch(later))))
        await asyncio.wait({late[0][1]}, timeout=1)

    await targets.deploy(replace(order, still_holds=holds))
    later, switching = late[0]
    await switching
    assert (site.home / "current").resolve().name == f"{later.fence:06d}-{later.tag}"


async def silent(stream: object, text: str) -> None:
    """Nobody reads the log."""


async def test_names_that_nobody_makes_keep_no_deployment_from_its_end(site: Site) -> None:
    site.home.mkdir(parents=True)
    (site.home / ".incoming-").mkdir()
    (site.home / ".incoming-all").symlink_to("/")
    await deployed(site)
    assert (site.home / "current" / "files" / "a.json").exists()


@pytest.mark.parametrize(("keep", "left"), [(0, 5), (1, 2), (3, 4), (20, 5)])
async def test_the_last_earlier_deployments_are_kept_and_the_current_one_always(site: Site, keep: int, left: int) -> None:
    site.limits = {"directory_keep": keep}
    for _ in range(5):
        await deployed(site)
    kept = sorted(path.name for path in (site.home / "deployments").iterdir())
    assert kept == [f"{number:06d}-r{number}" for number in range(6 - left, 6)]
    assert (site.home / "current").resolve().name == kept[-1]
    assert sorted(path.name for path in site.home.iterdir()) == ["current", "deployments"]


async def test_an_environment_that_was_put_back_by_hand_keeps_what_it_shows(site: Site) -> None:
    site.limits = {"directory_keep": 1}
    first = await deployed(site)
    await deployed(site)
    request = await site.ask(await site.commit({"a.json": "[]\n"}), await site.revise())
    (site.home / "current").unlink()
    (site.home / "current").symlink_to(f"deployments/{first.fence:06d}-{first.tag}")
    await site.switch(request)
    assert (await site.verify(request)).healthy


async def test_what_is_in_place_is_observed_as_it_was_applied(site: Site) -> None:
    request = await deployed(site)
    seen = await site.observe()
    assert seen == Observation(
        env_vars={"MODE": "calm", "PORT": "8080"},
        secrets={"TOKEN": secret_digest(KEY, TOKEN), "PIN": secret_digest(KEY, "47")},
        base_url="https://qa.example.com",
        observes_base_url=True,
        database={**PROFILE["database"], "base_profile_id": None},  # type: ignore[dict-item]
        files=request.commit_sha,
    )


async def test_nothing_is_observed_where_nothing_was_deployed(site: Site) -> None:
    await site.db["environments"].insert_one({"_id": "qa", "app_id": site.shop.app["_id"], "owned": {}})
    assert await site.observe() == Observation()


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(current: Path) -> None:
        path = current / name
        path.write_text(path.read_text().replace(old, new))

    return change


def put(name: str, text: str) -> Callable[[Path], None]:
    def change(current: Path) -> None:
        (current / name).write_text(text)

    return change


def link(name: str, to: str) -> Callable[[Path], None]:
    def change(current: Path) -> None:
        (current / name).unlink(missing_ok=True)
        (current / name).symlink_to(to)

    return change


def all_of_it(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("/")


CHANGED_FILES = {
    "edited": (put("files/a.json", "[1, 2]\n"), ["a.json"]),
    "edited to the same length": (put("files/a.json", "[]\n"), ["a.json"]),
    "gone": (lambda current: (current / "files/folder/b.json").unlink(), ["folder/b.json"]),
    "more": (put("files/folder/new.json", "{}"), ["folder/new.json"]),
    "a link to the same bytes": (link("files/a.json", "folder/b.json"), ["a.json"]),
    "a link that is new": (link("files/folder/more", "/etc"), ["folder/more"]),
    "the tree is gone": (lambda current: shutil.rmtree(current / "files"), sorted([*FILES, "base.txt"])),
    "the tree is a link to all that there is": (lambda current: all_of_it(current / "files"), sorted([*FILES, "base.txt"])),
    "another mode": (lambda current: (current / "files/a.json").chmod(0o755), ["a.json"]),
    "the profile is no JSON": (put("profile/profile.json", "{"), ["current/profile/profile.json"]),
    "the profile is no profile": (put("profile/profile.json", '{"name": 1}'), ["current/profile/profile.json"]),
    "the profile nests": (put("profile/profile.json", "[" * 99999), ["current/profile/profile.json"]),
    "variables that run something": (put("profile/profile.env", "A=$(id)\n"), ["current/profile/profile.env"]),
    "variables that are gone": (lambda current: (current / "profile/profile.env").unlink(), ["current/profile/profile.env"]),
    "more variables than anybody has": (
        put("profile/profile.env", "".join(f"A{number}=\n" for number in range(10_001))),
        ["current/profile/profile.env"],
    ),
    "the profile's copy alone": (edit("profile/profile.json", "calm", "wild"), ["current/profile/profile.json"]),
    "no manifest": (lambda current: (current / "manifest.json").unlink(), ["current/manifest.json"]),
    "a manifest of nothing": (put("manifest.json", '{"commit_sha": "main"}'), ["current/manifest.json"]),
}


@pytest.mark.parametrize("case", CHANGED_FILES)
async def test_what_somebody_changed_is_named(site: Site, case: str) -> None:
    change, expected = CHANGED_FILES[case]
    request = await deployed(site)
    change((site.home / "current").resolve())
    seen = await site.observe()
    assert (seen.files, seen.changed_paths) == (request.commit_sha, expected)


async def test_variables_edited_by_hand_are_what_is_there(site: Site) -> None:
    await deployed(site)
    current = (site.home / "current").resolve()
    put("profile/profile.env", f"MODE=wild\nexport TOKEN=other\nCOPY='a {TOKEN}'\nPIN=47\nNEW=47\n")(current)
    edit("profile/profile.json", "https://qa.example.com", "https://other.example.com")(current)
    seen = await site.observe()
    assert seen.env_vars == {"MODE": "wild", "COPY": WITHHELD, "NEW": "47"}, "a short secret stands in others by chance"
    assert seen.secrets == {"TOKEN": secret_digest(KEY, "other"), "PIN": secret_digest(KEY, "47")}
    assert seen.base_url == "https://other.example.com"
    assert TOKEN not in seen.model_dump_json()


async def test_an_environment_whose_folder_is_gone_is_empty(site: Site) -> None:
    await deployed(site)
    (site.home / "current").unlink()
    seen = await site.observe()
    assert (seen.env_vars, seen.secrets, seen.database, seen.files, seen.base_url) == ({}, {}, {}, "", None)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (None, None),
        ("schema_migrations", None),
        ("file:state/applied.txt", ["m/1.sql", "m/2.sql"]),
        ("file:state/none.txt", []),
        ("file:state/huge.txt", None),
        ("file:../../outside.txt", None),
        ("file:current/profile/profile.env", None),
        ("file:state/out/outside.txt", None),
    ],
)
async def test_applied_migrations_are_read_from_a_file_beside_current_only(
    site: Site, reference: str | None, expected: list[str] | None
) -> None:
    await deployed(site, migrations={"repo_paths": ["m"], "command_ref": "m", "applied_state_ref": reference})
    (site.home / "state").mkdir()
    (site.home / "state" / "applied.txt").write_text("m/1.sql\n\n m/2.sql \n")
    (site.home / "state" / "huge.txt").write_text("m\n" * 10_001)
    (site.folder / "outside.txt").write_text("secret")
    (site.home / "state" / "out").symlink_to(site.folder)
    assert (await site.observe()).migrations == expected


async def test_an_environment_that_does_not_show_the_release_is_unhealthy(site: Site) -> None:
    request = await deployed(site)
    assert (await site.verify(request)).healthy
    put("files/folder/b.json", "changed")((site.home / "current").resolve())
    found = await site.verify(request)
    assert not found.healthy
    assert "folder/b.json is not as the release has it" in found.message
    await deployed(site)
    assert "current points to" in (await site.verify(request)).message


async def test_an_unknown_target_says_who_mends_it(site: Site) -> None:
    request = await deployed(site)
    await site.define(deploy_target="k8s")
    with pytest.raises(ApplicationError, match="knows no target 'k8s': its operator adds it") as refused:
        await site.switch(request)
    assert refused.value.type == "runner_error"
    with pytest.raises(TargetError, match="knows no target"):
        await site.observe()
