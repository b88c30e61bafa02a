"""Settings of the programs that members of an app may choose by name (`spec.md` 6).

    CONMAN_COMMANDS_FILE=/etc/conman/commands.toml

    [integration-suite]
    kind = "msuite"                                  # msuite, migration, target or health
    argv = ["/opt/suite/run", "--all"]               # the program and its arguments, run without a shell
    description = "the suite of the payments team"   # optional
    version = "7"                                    # optional: another one, and no earlier result of it is reused

The file belongs to the operator. No member of an app can make a worker run anything else: an app's settings hold names only, and
a worker looks them up in its own file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode

BUILT_IN_SUITE = "msuite"
"""The name of the command of `CONMAN_MSUITE_COMMAND`, which every app has."""

BUILT_IN_TARGET = "directory"
"""The name of the target that needs no program (`spec.md` 12)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LARGEST_FILE_BYTES = 1024 * 1024


class ProgramKind(StrEnum):
    """What a program is for; a name is good only where its kind is asked for."""

    MSUITE = "msuite"
    MIGRATION = "migration"
    TARGET = "target"
    HEALTH = "health"


class Program(BaseModel):
    """One command of the operator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ProgramKind
    argv: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    description: str = ""
    version: str = Field(default="", max_length=200)

    @field_validator("argv")
    @classmethod
    def _names_a_program(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].strip():
            raise ValueError("must begin with a program")
        if any("\0" in word for word in value):
            raise ValueError("holds a NUL, which no program can be given")
        return value


@dataclass(frozen=True, slots=True)
class CommandsFile:
    """The operator's commands by name, as they were when the process started."""

    path: Path
    programs: Mapping[str, Program]

    def __str__(self) -> str:
        return str(self.path)


def read_commands(value: Any) -> Any:
    """The commands in a file. Raises `ValueError`, in one line that says what to mend."""
    if value is None or isinstance(value, CommandsFile):
        return value
    path = Path(value)
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ValueError(f"{path} is over {_LARGEST_FILE_BYTES} bytes")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    return CommandsFile(path, {name: _program(path, name, table) for name, table in tables.items()})


def _program(path: Path, name: str, table: object) -> Program:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path}: {name!r} is no name; use lower-case letters, digits, '.', '_' and '-', at most 63")
    if name in (BUILT_IN_SUITE, BUILT_IN_TARGET):
        raise ValueError(f"{path}: {name!r} is built in; choose another name")
    if not isinstance(table, dict):
        raise ValueError(f"{path}: {name!r} must be a table with kind and argv")
    try:
        return Program.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in (name, *problem["loc"]))
        raise ValueError(f"{path}: {where}: {problem['msg']}") from error


class ProgramSettings(BaseSettings):
    """The operator's commands (`spec.md` 6)."""

    msuite_command: Annotated[list[str], NoDecode] = Field(
        default=["conman", "msuite", "."],
        description="The test suite named `msuite`, the default of every app, as words separated by spaces; runs in the "
        "checkout. `conman` is this program.",
    )
    commands_file: Annotated[CommandsFile | None, NoDecode, BeforeValidator(read_commands)] = Field(
        default=None,
        description="TOML file of further commands that apps may choose by name: a table `[name]` for each, with `kind` "
        "(`msuite`, `migration`, `target`, `health`), `argv` (a list: the program and its arguments, no shell), "
        "`description`, and `version`: another one when what the program does has changed, and no earlier result of it is reused "
        "(changes of its own files are noticed). Read at the start; give every API process and worker the same one. Unset: only "
        "`msuite` and the target `directory` are known.",
    )

    @field_validator("msuite_command", mode="before")
    @classmethod
    def _split_words(cls, value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    def program(self, kind: ProgramKind, name: str) -> Program | None:
        """The operator's command of this kind and name, None when there is none."""
        if kind is ProgramKind.MSUITE and name == BUILT_IN_SUITE:
            return Program(kind=kind, argv=tuple(self.msuite_command), description="the default suite")
        found = self.commands_file.programs.get(name) if self.commands_file is not None else None
        return found if found is not None and found.kind is kind else None

    def program_names(self, kind: ProgramKind | Literal["msuite", "migration", "target", "health"]) -> list[str]:
        """The names that are good where this kind is asked for, in order; the built-in one first."""
        built_in = {ProgramKind.MSUITE: [BUILT_IN_SUITE], ProgramKind.TARGET: [BUILT_IN_TARGET]}.get(ProgramKind(kind), [])
        programs = self.commands_file.programs if self.commands_file is not None else {}
        return built_in + sorted(name for name, program in programs.items() if program.kind == kind)
