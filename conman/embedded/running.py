"""What a running `conman up` tells others: the ready file, DATA/run/up.json, and the keys below DATA/keys."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conman.config import Settings, generate_secret
from conman.embedded.errors import EmbeddedError
from conman.embedded.files import DataLock, write_private
from conman.settings.vault import generate_keyring, parse_keyring

_ADMIN_EMAIL = "admin@conman.local"
_PASSWORD_BYTES = 18


@dataclass(frozen=True)
class RunningUp:
    """Where a running `conman up` is, and what its parts share."""

    api_url: str
    temporal_address: str
    temporal_ui_url: str | None
    mongo_uri: str
    admin_email: str
    admin_password: str
    secret: str
    master_keys: str
    codec_keys: str | None = None
    codec_encrypt: bool = True

    def public(self) -> dict[str, Any]:
        """What the ready file says: all but the keys and how they are used."""
        kept_back = ("secret", "master_keys", "codec_keys", "codec_encrypt")
        return {name: value for name, value in asdict(self).items() if name not in kept_back}


@dataclass(frozen=True)
class Keys:
    """The secrets of one data folder."""

    secret: str
    admin_email: str
    admin_password: str
    master_keys: str


def load_keys(settings: Settings) -> Keys:
    """The settings' secrets, and for what they leave open those of DATA/keys, made at the first start.

    Raises `EmbeddedError` where a kept file can't be used: making another key in its place would end every session.
    """
    folder = settings.data.resolve() / "keys"
    if settings.secret is not None:
        secret = settings.secret.get_secret_value()
    else:
        secret = _keep(folder / "secret", generate_secret).strip()
        if len(secret.encode()) < 32:
            raise EmbeddedError(f"{folder / 'secret'} is damaged: restore it, or delete it, which signs everybody out")
    master_keys = _master_keys(settings, folder / "master-keys")
    email = settings.admin_email or _ADMIN_EMAIL
    if settings.admin_password is not None:
        return Keys(secret, email, settings.admin_password.get_secret_value(), master_keys)

    path = folder / "admin.json"
    made = _keep(path, lambda: json.dumps({"email": email, "password": secrets.token_urlsafe(_PASSWORD_BYTES)}) + "\n")
    try:
        kept = json.loads(made)
        return Keys(secret, settings.admin_email or str(kept["email"]), str(kept["password"]), master_keys)
    except (ValueError, TypeError, KeyError) as error:
        raise EmbeddedError(f"{path} is damaged ({error!r}): restore it, or set CONMAN_ADMIN_PASSWORD") from error


def _master_keys(settings: Settings, path: Path) -> str:
    if settings.master_keys is not None:
        return settings.master_keys.get_secret_value()
    keyring = _keep(path, lambda: generate_keyring() + "\n").strip()
    try:
        parse_keyring(keyring)
    except ValueError as error:
        raise EmbeddedError(
            f"{path} is damaged ({error}): restore it; the secrets of profiles can't be read without it"
        ) from error
    return keyring


def _keep(path: Path, make: Any) -> str:
    """The text of a private file, made if it isn't there."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        text = make()
        write_private(path, text)
        return text
    except (OSError, UnicodeDecodeError) as error:
        raise EmbeddedError(f"{path} can't be read: {error}") from error


def _running_file(data: Path) -> Path:
    return data.resolve() / "run" / "up.json"


def announce(running: RunningUp, data: Path, ready_file: Path | None) -> None:
    """Write DATA/run/up.json and then the ready file, both 0600. Raises `EmbeddedError`."""
    try:
        write_private(_running_file(data), json.dumps(asdict(running), indent=2) + "\n")
        if ready_file is not None:
            write_private(ready_file, json.dumps(running.public(), indent=2) + "\n")
    except OSError as error:
        raise EmbeddedError(f"can't tell that all is ready: {error}") from error


def withdraw(data: Path, ready_file: Path | None) -> None:
    """Delete what `announce` wrote, so that nobody waits for, or joins, what has gone. Raises `EmbeddedError`."""
    try:
        _running_file(data).unlink(missing_ok=True)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    except OSError as error:
        raise EmbeddedError(f"can't delete the ready file: {error}") from error


def read_running(data: Path) -> RunningUp | None:
    """The `conman up` that runs on this data folder and is ready, or None: also where one died and left its file."""
    try:
        content = json.loads(_running_file(data).read_text(encoding="utf-8"))
        running = RunningUp(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # another version's file; it is renamed into place, so never half a file
        return None
    return running if DataLock.is_held(data.resolve()) else None
