"""The suite of the API tests: the built-in one; `slow.flag` in the tree makes it wait until the flag's file is gone."""

import subprocess
import sys
import time
from pathlib import Path

slow = Path("slow.flag")
if slow.exists():
    held = Path(slow.read_text(encoding="utf-8").strip())
    print(f"waiting while {held.name} exists", flush=True)
    deadline = time.monotonic() + 120
    while held.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
sys.exit(subprocess.run([sys.executable, "-m", "conman.msuite", "."], check=False).returncode)
