"""`python -m conman.msuite [--report FILE] [--format FORM] PATH`: the built-in suite without the rest of the command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from conman.msuite.main import HELP, REPORT_VARIABLE, Form, run


def main() -> int:
    """Read the arguments and run; the exit code."""
    parser = argparse.ArgumentParser(prog="conman msuite", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="folder to check; default: this one")
    parser.add_argument("--report", type=Path, help=f"file for a JSON report; default: ${REPORT_VARIABLE}")
    parser.add_argument("--format", choices=[form.value for form in Form], default=Form.TEXT.value, help="what is printed")
    given = parser.parse_args()
    named = os.environ.get(REPORT_VARIABLE)
    return run(given.path, given.report or (Path(named) if named else None), sys.stdout, Form(given.format))


if __name__ == "__main__":
    sys.exit(main())
