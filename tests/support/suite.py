"""The suite of the tests over HTTP: the built-in one, which files in the checked tree make slow or quarrelsome.

- `slow.flag` names a file: the suite waits while that file exists.
- `tell.flag` names a file: the suite writes its variables there, as JSON.
- `*.quarrel`: each is fine alone, two in one tree fail, so that a merge of two good changes is a bad one.
"""

import json
import os
import sys
import time
from pathlib import Path

from conman.msuite.__main__ import main

slow = Path("slow.flag")
if slow.exists():
    held = Path(slow.read_text(encoding="utf-8").strip())
    print(f"waiting while {held.name} exists", flush=True)
    deadline = time.monotonic() + 120
    while held.exists() and time.monotonic() < deadline:
        time.sleep(0.03)
tell = Path("tell.flag")
if tell.exists():
    Path(tell.read_text(encoding="utf-8").strip()).write_text(json.dumps(dict(os.environ)), encoding="utf-8")
quarrels = sorted(path.name for path in Path().glob("*.quarrel"))
if len(quarrels) > 1:
    print(f"{' and '.join(quarrels)} can't stand together", flush=True)
    sys.exit(1)
sys.exit(main())
