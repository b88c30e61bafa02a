"""Ports, keys, the data folder's lock and the ready file."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from conman.config import Settings
from conman.embedded.errors import EmbeddedError
from conman.embedded.files import DataLock, write_private
from conman.embedded.ports import is_free, lease
from conman.embedded.running import Keys, RunningUp, announce, load_keys, read_running, withdraw
from conman.settings.vault import generate_keyring, parse_keyring

RUNNING = RunningUp(
    api_url="http://127.0.0.1:8080",
    temporal_address="127.0.0.1:7233",
    temporal_ui_url="http://127.0.0.1:8233",
    mongo_uri="mongodb://127.0.0.1:27017",
    admin_email="admin@conman.local",
    admin_password="a password",
    secret="s" * 64,
    master_keys="k",
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_port_with_a_listener_is_not_free_on_whichever_address_it_listens() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((host, 0)) as server:
            assert not is_free(server.getsockname()[1])


def test_the_first_free_port_of_those_preferred_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = lease([])
        free.release()
        held = lease([None, server.getsockname()[1], free.port])
        assert held.port == free.port
        held.release()


def test_a_leased_port_is_not_leased_twice_while_its_server_is_down() -> None:
    first = lease([])
    second = lease([first.port])
    assert second.port != first.port
    first.release()
    third = lease([first.port])
    assert third.port == first.port
    second.release()
    third.release()


def test_other_ports_are_below_those_of_outgoing_connections() -> None:
    leases = [lease([]) for _ in range(20)]
    assert all(15000 <= held.port <= 32000 for held in leases)
    for held in leases:
        held.release()


def test_a_data_folder_is_locked_by_one(tmp_path: Path) -> None:
    first, second = DataLock(tmp_path), DataLock(tmp_path)
    assert not DataLock.is_held(tmp_path)
    first.acquire()
    assert DataLock.is_held(tmp_path)
    with pytest.raises(EmbeddedError, match="in use by another conman") as refused:
        second.acquire()
    assert "\n" not in str(refused.value)
    first.release()
    assert not DataLock.is_held(tmp_path)
    second.acquire()
    second.release()


def test_a_private_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert mode(path) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_ready_file_has_all_but_the_key_and_is_private(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    announce(RUNNING, tmp_path / "data", ready)
    assert json.loads(ready.read_text()) == {
        "api_url": "http://127.0.0.1:8080",
        "temporal_address": "127.0.0.1:7233",
        "temporal_ui_url": "http://127.0.0.1:8233",
        "mongo_uri": "mongodb://127.0.0.1:27017",
        "admin_email": "admin@conman.local",
        "admin_password": "a password",
    }
    assert mode(ready) == mode(tmp_path / "data" / "run" / "up.json") == 0o600


def test_a_running_up_is_found_only_while_it_lives(tmp_path: Path) -> None:
    assert read_running(tmp_path) is None
    lock = DataLock(tmp_path)
    lock.acquire()
    assert read_running(tmp_path) is None
    announce(RUNNING, tmp_path, None)
    assert read_running(tmp_path) == RUNNING
    lock.release()  # as its death does
    assert read_running(tmp_path) is None


def test_withdrawn_files_are_gone_and_may_have_been(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    withdraw(tmp_path, ready)
    announce(RUNNING, tmp_path, ready)
    withdraw(tmp_path, ready)
    assert not ready.exists() and not (tmp_path / "run" / "up.json").exists()


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    keys = load_keys(Settings(data=tmp_path))
    assert keys == load_keys(Settings(data=tmp_path))
    assert keys.admin_email == "admin@conman.local"
    assert len(keys.admin_password) >= 20 and len(keys.secret) >= 32
    assert mode(tmp_path / "keys") == 0o700
    assert len(parse_keyring(keys.master_keys)) == 1
    assert {mode(tmp_path / "keys" / name) for name in ("secret", "admin.json", "master-keys")} == {0o600}


def test_named_keys_win_and_are_not_stored(tmp_path: Path) -> None:
    keyring = generate_keyring()
    named = Settings(
        data=tmp_path,
        secret=SecretStr("x" * 32),
        master_keys=SecretStr(keyring),
        admin_email="ada@example.com",
        admin_password=SecretStr("hers"),
    )
    assert load_keys(named) == Keys("x" * 32, "ada@example.com", "hers", keyring)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("secret", "short"), ("admin.json", "{}"), ("admin.json", "["), ("master-keys", "a:short")]
)
def test_a_damaged_key_stops_the_start_and_is_not_replaced(name: str, content: str, tmp_path: Path) -> None:
    load_keys(Settings(data=tmp_path))
    path = tmp_path / "keys" / name
    path.write_text(content)
    with pytest.raises(EmbeddedError, match=f"{name} is damaged"):
        load_keys(Settings(data=tmp_path))
    assert path.read_text() == content
