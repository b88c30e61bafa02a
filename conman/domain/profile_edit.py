"""Changes of a runtime profile as people send them: the strict schema, and merging them in (`spec.md` 6).

`env_vars` and `secrets` are merged by key, and null deletes one; every other field is replaced as a whole, and null clears it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

STRICT = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
_CLEARED: Mapping[str, Callable[[], BaseModel | None]] = {
    "database": lambda: None,
    "migrations": lambda: None,
    "data_strategy": DataStrategy,
    "lifecycle": Lifecycle,
}
"""The fields that are replaced as a whole, with what null leaves of them."""

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

    model_config = STRICT

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(rendered_value(self).encode()) > MAX_VALUE_BYTES:
            raise ValueError(f"the value is over {MAX_VALUE_BYTES} bytes")
        return self


class GivenDatabase(ProfileDatabase):
    """`database` in a request."""

    model_config = STRICT
    connection_ref: str = Field(min_length=1, max_length=200)
    base_profile_id: str | None = Field(default=None, min_length=1, max_length=64)


class GivenMigrations(ProfileMigrations):
    """`migrations` in a request."""

    model_config = STRICT
    repo_paths: list[Annotated[str, AfterValidator(_repo_path)]] = Field(max_length=MAX_REPO_PATHS)
    command_ref: str = Field(min_length=1, max_length=63)
    applied_state_ref: Text | None = None


class GivenDataStrategy(DataStrategy):
    """`data_strategy` in a request."""

    model_config = STRICT
    seed_source_ref: Text | None = None


class GivenLifecycle(Lifecycle):
    """`lifecycle` in a request."""

    model_config = STRICT
    ttl_idle_hours: int | None = Field(default=None, ge=1, le=LONGEST_HOURS)
    grace_hours: int | None = Field(default=None, ge=0, le=LONGEST_HOURS)


GivenVariables = Annotated[dict[str, GivenValue | None], AfterValidator(_names)]
GivenSecrets = Annotated[dict[str, Annotated[SecretStr, AfterValidator(_secret)] | None], AfterValidator(_names)]


class OverridableFields(BaseModel):
    """What an edit of a profile and an override of one have in common. The defaults stand only for what was not sent."""

    model_config = STRICT

    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_web_url)] | None = None
    env_vars: GivenVariables = Field(default_factory=dict[str, "GivenValue | None"])
    secrets: GivenSecrets = Field(default_factory=dict[str, "SecretStr | None"])
    database: GivenDatabase | None = None
    migrations: GivenMigrations | None = None
    data_strategy: GivenDataStrategy | None = None

    def new_secrets(self) -> dict[str, str]:
        """The values of the secrets that are set, by key."""
        return {key: value.get_secret_value() for key, value in self.secrets.items() if value is not None}

    def change(self, refs: Mapping[str, SecretRef]) -> dict[str, Any]:
        """What was sent, as `changed` takes it; `refs` has what becomes of each secret that is set."""
        sent = self.model_fields_set
        change: dict[str, Any] = {field: getattr(self, field) for field in ("name", "kind", "base_url") if field in sent}
        if "env_vars" in sent:
            change["env_vars"] = {
                key: None if value is None else TypedValue(type=value.type, value=value.value)
                for key, value in self.env_vars.items()
            }
        if "secrets" in sent:
            change["secrets"] = {key: refs.get(key) for key in self.secrets}
        for field in _CLEARED:
            if field in sent:
                value: BaseModel | None = getattr(self, field)
                change[field] = None if value is None else value.model_dump()
        return change


class ProfileFields(OverridableFields):
    """What may be sent of a profile."""

    kind: ProfileKind = "persistent_env"
    lifecycle: GivenLifecycle | None = None


class NewProfile(ProfileFields):
    """A new profile; what is not sent has its default."""

    name: Name


class ProfileEdit(ProfileFields):
    """A change; what is not sent stays as it is."""

    name: Name = ""


def refuse_masks(profile: Profile, edit: OverridableFields) -> None:
    """Refuse a secret's value that equals its present mask: somebody wrote back what they read. Raises `validation_error`."""
    for key, value in edit.new_secrets().items():
        present = profile.secrets.get(key)
        if present is not None and value == present.mask:
            raise invalid(f"secrets.{key}", "is the mask of the present value: leave the secret out to keep it")


def merge(profile: Profile, edit: OverridableFields, refs: Mapping[str, SecretRef]) -> Profile:
    """The profile with the change; `refs` has what becomes of each secret that the edit sets.

    Raises `validation_error` when the result is no sound profile.
    """
    merged = changed(profile, edit.change(refs))
    check_sound(merged)
    return merged


def changed(profile: Profile, change: Mapping[str, Any]) -> Profile:
    """The profile with these fields changed, whether that is sound or not: `env_vars` and `secrets` by key, where None deletes
    one, every other field as a whole, where None clears it.
    """
    update = {field: _CLEARED[field]() if value is None and field in _CLEARED else value for field, value in change.items()}
    for field in ("env_vars", "secrets"):
        if field in change:
            update[field] = _by_key(getattr(profile, field), change[field])
    return Profile.model_validate({**dict(profile), **update})


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
