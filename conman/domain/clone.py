"""Names of the databases of temp envs: what Conman may write to and drop on a server that others use too (`spec.md` 13)."""

from __future__ import annotations

import re
from typing import Final

CLONE_PREFIX: Final = "conman_temp_"
"""How the name of each database begins that a temp env gets."""

OWN_PREFIX: Final = "_conman"
"""How the names of Conman's own collections in a clone begin; a collection of the base with such a name is left out."""

_NAME = re.compile(rf"{CLONE_PREFIX}([0-9a-f]{{8}})([0-9a-f]{{4}})([0-9a-f]{{4}})([0-9a-f]{{4}})([0-9a-f]{{12}})")


def temp_env_of_database(name: str) -> str | None:
    """The id of the temp env whose database has this name; None for a database that no temp env can have."""
    found = _NAME.fullmatch(name)
    return "-".join(found.groups()) if found is not None else None


def check_clone_name(name: str) -> str:
    """The name, if a temp env may have a database of it. Raises `ValueError`: nothing else is ever written to or dropped."""
    if temp_env_of_database(name) is None:
        raise ValueError(f"{name!r} is no database of a temp env")
    return name


def is_copied(collection: str) -> bool:
    """Whether a collection of the base goes into a clone: the server's own (`system.`) and Conman's do not."""
    return not collection.startswith(("system.", OWN_PREFIX))
