"""Changes of a runtime profile as people send them: the strict schema, and merging them in (`spec.md` 6).

`env_vars` and `secrets` are merged by key, and null deletes one; every other field is replaced as a whole, and null clears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.paths import normalise_path
from conman.domain.profile import (
    DataStrategy,
    Lifecycle,
    Profile,
    ProfileDatabase,
    ProfileKind,
    ProfileMigrations,
    TypedValue,
    rendered_value,
)
from conman.domain.secrets import SecretRef
from conman.domain.typed_value import MAX_VALUE_BYTES, MAX_VARIABLES, MAX_VARIABLES_BYTES, name_problem

MAX_SECRETS = 64
MAX_SECRET_BYTES = 16 * 1024
"""The longest secret, bytes of UTF-8; all secrets of a profile fit into a process's environment beside all variables."""

MAX_REPO_PATHS = 100
LONGEST_HOURS = 8760
"""A year."""

_STRICT = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without white space around it")
    return text


def _web_url(text: str) -> str:
    if not text.isprintable() or " " in text or "\\" in text or not text.lower().startswith(("http://", "https://")):
        raise ValueError("must be an http:// or https:// URL")
    try:
        url = _URL.validate_python(text)
    except ValidationError:
        raise ValueError("must be an http:// or https:// URL") from None
    if url.username is not None or url.password is not None:
        raise ValueError("must not hold a user name or password: keep these among the secrets")
    return text


def _repo_path(text: str) -> str:
    try:
        path = normalise_path(text, folder=True)
    except DomainError as error:
        raise ValueError(error.message) from None
    if not path:
        raise ValueError("is the root of the repository: name a folder or file in it")
    return path


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("is empty: null deletes a secret")
    if "\0" in text:
        raise ValueError("has a NUL, which no process can be given")
    if len(text.encode()) > MAX_SECRET_BYTES:
        raise ValueError(f"is over {MAX_SECRET_BYTES} bytes")
    return value


def _names(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        problem = name_problem(name)
        if problem is not None:
            raise ValueError(f"{name[:40]!r} {problem}")
    return values


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class GivenValue(TypedValue):
    """A typed value in a request."""

    model_config = _STRICT

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(rendered_value(self).encode()) > MAX_VALUE_BYTES:
            raise ValueError(f"the value is over {MAX_VALUE_BYTES} bytes")
        return self


class GivenDatabase(ProfileDatabase):
    """`database` in a request."""

    model_config = _STRICT
    connection_ref: str = Field(min_length=1, max_length=200)
    base_profile_id: str | None = Field(default=None, min_length=1, max_length=64)


class GivenMigrations(ProfileMigrations):
    """`migrations` in a request."""

    model_config = _STRICT
    repo_paths: list[Annotated[str, AfterValidator(_repo_path)]] = Field(max_length=MAX_REPO_PATHS)
    command_ref: str = Field(min_length=1, max_length=63)
    applied_state_ref: Text | None = None


class GivenDataStrategy(DataStrategy):
    """`data_strategy` in a request."""

    model_config = _STRICT
    seed_source_ref: Text | None = None


class GivenLifecycle(Lifecycle):
    """`lifecycle` in a request."""

    model_config = _STRICT
    ttl_idle_hours: int | None = Field(default=None, ge=1, le=LONGEST_HOURS)
    grace_hours: int | None = Field(default=None, ge=0, le=LONGEST_HOURS)


GivenVariables = Annotated[dict[str, GivenValue | None], AfterValidator(_names)]
GivenSecrets = Annotated[dict[str, Annotated[SecretStr, AfterValidator(_secret)] | None], AfterValidator(_names)]


class ProfileFields(BaseModel):
    """What may be sent of a profile. The defaults stand only for what was not sent."""

    model_config = _STRICT

    kind: ProfileKind = "persistent_env"
    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_web_url)] | None = None
    env_vars: GivenVariables = Field(default_factory=dict[str, "GivenValue | None"])
    secrets: GivenSecrets = Field(default_factory=dict[str, "SecretStr | None"])
    database: GivenDatabase | None = None
    migrations: GivenMigrations | None = None
    data_strategy: GivenDataStrategy | None = None
    lifecycle: GivenLifecycle | None = None

    def new_secrets(self) -> dict[str, str]:
        """The values of the secrets that are set, by key."""
        return {key: value.get_secret_value() for key, value in self.secrets.items() if value is not None}


class NewProfile(ProfileFields):
    """A new profile; what is not sent has its default."""

    name: Name


class ProfileEdit(ProfileFields):
    """A change; what is not sent stays as it is."""

    name: Name = ""


def refuse_masks(profile: Profile, edit: ProfileFields) -> None:
    """Refuse a secret's value that equals its present mask: somebody wrote back what they read. Raises `validation_error`."""
    for key, value in edit.new_secrets().items():
        present = profile.secrets.get(key)
        if present is not None and value == present.mask:
            raise invalid(f"secrets.{key}", "is the mask of the present value: leave the secret out to keep it")


def merge(profile: Profile, edit: ProfileFields, refs: Mapping[str, SecretRef]) -> Profile:
    """The profile with the change; `refs` has what becomes of each secret that the edit sets.

    Raises `validation_error` when the result is no sound profile.
    """
    sent = edit.model_fields_set
    change: dict[str, Any] = {field: getattr(edit, field) for field in ("name", "kind", "base_url") if field in sent}
    if "env_vars" in sent:
        given = {
            key: None if value is None else TypedValue(type=value.type, value=value.value) for key, value in edit.env_vars.items()
        }
        change["env_vars"] = _by_key(profile.env_vars, given)
    if "secrets" in sent:
        change["secrets"] = _by_key(profile.secrets, {key: refs.get(key) for key in edit.secrets})
    for field, cleared in (
        ("database", None),
        ("migrations", None),
        ("data_strategy", DataStrategy()),
        ("lifecycle", Lifecycle()),
    ):
        if field in sent:
            value: BaseModel | None = getattr(edit, field)
            change[field] = cleared if value is None else value.model_dump()
    merged = Profile.model_validate({**dict(profile), **change})
    check_sound(merged)
    return merged


def _by_key(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**present, **given}.items() if value is not None}


def check_sound(profile: Profile) -> None:
    """What must hold of a whole profile. Raises `validation_error` with all that does not."""
    problems: list[dict[str, str]] = []

    def problem(field: str, message: str) -> None:
        problems.append({"field": field, "message": message})

    for key in sorted(profile.env_vars.keys() & profile.secrets.keys()):
        problem(f"secrets.{key}", "is a variable and a secret at once: delete one of them with null")
    if profile.database is not None and profile.database.connection_ref not in profile.secrets:
        problem("database.connection_ref", "names none of the profile's secrets")
    if len(profile.env_vars) > MAX_VARIABLES:
        problem("env_vars", f"are more than {MAX_VARIABLES}")
    if len(profile.secrets) > MAX_SECRETS:
        problem("secrets", f"are more than {MAX_SECRETS}")
    if sum(len(key) + len(rendered_value(value).encode()) for key, value in profile.env_vars.items()) > MAX_VARIABLES_BYTES:
        problem("env_vars", f"take more than {MAX_VARIABLES_BYTES} bytes together")
    if problems:
        named = "; ".join(f"{one['field']}: {one['message']}" for one in problems[:3])
        raise DomainError(ErrorCode.VALIDATION_ERROR, f"Mend the profile: {named}.", problems)
