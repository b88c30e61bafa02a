"""`python -m conman.msuite PATH [--report FILE]`: the built-in suite without the rest of the command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from conman.msuite.main import REPORT_VARIABLE, run


def main() -> int:
    """Read the arguments and run; the exit code."""
    parser = argparse.ArgumentParser(prog="conman msuite", description="Check JSON, YAML and TOML files.")
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="folder to check; default: this one")
    parser.add_argument("--report", type=Path, help=f"file for a JSON report; default: ${REPORT_VARIABLE}")
    given = parser.parse_args()
    named = os.environ.get(REPORT_VARIABLE)
    return run(given.path, given.report or (Path(named) if named else None), sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
