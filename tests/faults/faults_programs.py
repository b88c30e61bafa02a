"""The operator's programs of the fault tests: a target, a migration and a health command.

Run as a program, `faults_programs.py FOLDER target|migrate|health …`. What it does is a line of `FOLDER/runs`. What it is to
do otherwise is a file in `FOLDER`, made by a test: `die-deploy` and `fail-deploy` (half-way, once), `break-migrate` (fail),
`unhealthy` (the tags that do not work).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, role: str, *arguments: str) -> int:
    match role, arguments:
        case "target", ("deploy",):
            return deploy(folder, json.load(sys.stdin))
        case "target", ("observe",):
            print(json.dumps(seen(folder, json.load(sys.stdin))))
        case "target", ("health",):
            print(json.dumps({"healthy": works(folder, json.load(sys.stdin)["tag"])}))
        case "migrate", (path,):
            note(folder, f"migrate {Path(path).name}")
            return int((folder / "break-migrate").exists())
        case _:
            return int(not works(folder, os.environ["CONMAN_TAG"]))
    return 0


def note(folder: Path, text: str) -> None:
    with (folder / "runs").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def told_once(path: Path) -> bool:
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def works(folder: Path, tag: str) -> bool:
    path = folder / "unhealthy"
    return not path.exists() or tag not in path.read_text(encoding="utf-8").split()


def deploy(folder: Path, order: dict[str, Any]) -> int:
    """Put the files beside the others, then say which ones count; a lower fence than the one in place is refused."""
    home = folder / "box" / order["environment"]["id"]
    place = home / f"{order['fence']}-{order['tag']}"
    note(folder, f"deploy {order['tag']} under {order['fence']}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "half").touch()
    if told_once(folder / "fail-deploy"):
        return 3
    if told_once(folder / "die-deploy"):
        os.kill(os.getpid(), signal.SIGKILL)
    (place / "half").unlink()
    shutil.copytree(order["files"], place / "files")
    if in_place(home).get("fence", 0) > order["fence"]:
        return 1
    fresh = home / f".{place.name}"
    said = {name: order[name] for name in ("fence", "tag", "commit_sha")}
    fresh.write_text(json.dumps({**said, "folder": place.name}), encoding="utf-8")
    fresh.replace(home / "current.json")
    print(json.dumps({"folder": str(place)}))
    return 0


def in_place(home: Path) -> dict[str, Any]:
    """What the target shows: `{fence, tag, commit_sha, folder}`, empty before the first deployment."""
    path = home / "current.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def seen(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    shown = in_place(folder / "box" / order["environment"]["id"])
    return {"commit_sha": shown["commit_sha"]} if shown else {}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
