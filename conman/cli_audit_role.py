"""`conman audit role`: the database role under which the audit can only be added to (`spec.md` 14, docs/mongodb-roles.md)."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from conman.cli_audit import JsonOption


def role(
    database: Annotated[str, typer.Option("--database", help="Name of Conman's database.")] = "conman",
    as_json: JsonOption = False,
) -> None:
    """Print the MongoDB role for production, for mongosh to read.

    Its user may add to the audit and its seals, and neither change nor remove
    anything there. Print it again after each upgrade and use db.updateRole.
    """
    from conman.cli import out
    from conman.store.database_role import role_of

    made = role_of(database)
    if as_json:
        out.print_json(json.dumps(made))
        return
    text = json.dumps(made, indent=2)
    out.print(f"db.getSiblingDB({json.dumps(database)}).createRole({text})", highlight=False, markup=False, soft_wrap=True)
