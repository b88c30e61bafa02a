"""The main job with repositories on a Gitaly server, in the mode that Conman finds out for itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conman.git.server import ServerFlavour, ServerOptions, serve
from tests.support.conman_stack import b64, make_world, running_stack
from tests.support.sizes import some_of


@pytest.mark.parametrize(
    ("flavour", "mode"),
    some_of([(ServerFlavour.FULL, "operations"), (ServerFlavour.GITALY_RS, "pack")], one_in=2),
    ids=some_of(["operations", "pack"], one_in=2),
)
async def test_a_change_goes_from_a_save_to_every_environment(tmp_path: Path, flavour: ServerFlavour, mode: str) -> None:
    storage = tmp_path / "storage"
    options = ServerOptions(token="a secret of the server", flavour=flavour)
    async with (
        serve(storage, options) as address,
        running_stack(
            tmp_path,
            CONMAN_GIT_BACKEND="gitaly",
            CONMAN_GITALY_ADDRESS=address,
            CONMAN_GITALY_TOKEN="a secret of the server",
        ) as stack,
    ):
        world = await make_world(stack)
        changes = [await world.queued({f"entities/{name}.json": f'{{"name": "{name}"}}'}) for name in ("one", "two", "rest")]
        release = await world.validated(*changes[:2])
        published = (await world.max.post(f"{release}/publish"))["release"]
        for number, environment in enumerate(await world.environments()):
            ended = await world.deployed(environment["id"], release, "promote" if number else "deploy")
            assert ended["state"] == "succeeded", ended
        assert await world.state(release) == "deployed_full"
        assert await world.state(changes[2]) == "queued"

        workspace = await world.workspace()
        saved = await world.save(workspace, "entities/one.json", '{"name": "uno"}')
        read = await world.ann.get(f"{workspace}/files", params={"path": "entities/one.json"})
        assert (read["content"], read["blob_id"], read["pending"]) == ('{"name": "uno"}', saved["blob_id"], True)
        batch = {"changes": [{"action": "write", "path": "x.json", "content": b64("{}")}, {"action": "delete", "path": "y.json"}]}
        assert (await world.ann.send("POST", f"{workspace}/files/batch", json=batch)).status_code == 404

        # By now the client has met a repository with a branch, and knows what the server can do.
        health = (await stack.client.get("/health")).json()["components"]["git"]
        assert (health["status"], health["backend"], health["mode"]) == ("ok", "gitaly", mode)
        assert health["operations"] == ("yes" if mode == "operations" else "no")

        repository = storage / world.app["repo_path"]
        heads = _git(repository, "rev-parse", "refs/heads/main", f"refs/tags/{published['tag']}").split()
        assert heads == [published["published_sha"]] * 2
        assert _git(repository, "fsck", "--strict", "--no-dangling") == ""
        assert "conman-tmp" not in _git(repository, "for-each-ref")


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=True, text=True).stdout
