"""Clones of databases: what comes over, how an attempt goes on after a kill, and what is never touched (`spec.md` 13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson import decode_file_iter
from pymongo import ReadPreference
from pymongo.errors import OperationFailure, PyMongoError

from conman.domain.temp_env import temp_database
from conman.services import clone_copy
from conman.services.clock import new_id
from conman.services.clone_copy import Copy
from conman.services.clone_database import CloneDatabase, Filled
from conman.services.clone_files import dump, file_name, restore
from conman.services.clone_source import after_id
from conman.services.mongo_connections import CloneError, connection_of
from conman.store.database import connect
from tests.services.clone_bench import ODD, WORDS, CloneBench
from tests.support.crashes import crash_at


@pytest.fixture
async def bench(mongo_uri: str) -> AsyncIterator[CloneBench]:
    client = connect(mongo_uri)
    made = CloneBench(mongo_uri, client)
    await made.fill_base()
    yield made
    for name in (made.base_name, made.clone_name):
        await client.drop_database(name)
    await client.close()


async def _copied(bench: CloneBench, claim: str = "first", *, same_server: bool = False, batch: int = 50) -> Filled:
    async with bench.clone(claim) as clone:
        await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        filled = await Copy(bench.base, clone, batch=batch, same_server=same_server, tell=bench.tell).run(await bench.plans())
        await clone.finish(filled)
        return filled


@pytest.mark.parametrize("same_server", [True, False], ids=["by the server", "through the worker"])
async def test_a_copy_has_every_document_byte_for_byte_and_every_index(bench: CloneBench, same_server: bool) -> None:
    filled = await _copied(bench, same_server=same_server)
    await bench.is_the_same()
    assert (filled.how, filled.collections) == ("copied", 6)
    done, total, _ = bench.told[-1]
    assert done == total == filled.documents == 300 + len(ODD) + 3 + 1 + 1


@pytest.mark.parametrize("crash", ["clone.batch", "clone.collection"])
async def test_a_copy_that_died_is_finished_by_the_next_one(bench: CloneBench, crash: str) -> None:
    with crash_at(crash):
        await _copied(bench)
    before = await bench.content(bench.clone_name)
    assert before.keys() < (await bench.content(bench.base_name)).keys(), "what is not whole has no name yet"
    await _copied(bench, "second")
    await bench.is_the_same()
    async with bench.clone("third") as clone:
        assert await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z") == Filled("copied", 6, 319)


async def test_an_attempt_that_was_given_up_writes_no_more(bench: CloneBench) -> None:
    async with bench.clone("first") as clone:
        await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        former = Copy(bench.base, clone, batch=50, same_server=False, tell=bench.tell)
        await _copied(bench, "second")
        with pytest.raises(CloneError, match="another attempt"):
            await clone.finish(await former.run([plan for plan in await bench.plans() if plan.name == "goods"][:0]))
        with pytest.raises(CloneError, match="another attempt"):
            await former._copy(next(plan for plan in await bench.plans() if plan.name == "goods"), fresh=True)
    await bench.is_the_same()


@pytest.mark.parametrize("last", range(len(ODD)), ids=[f"after {type(one['_id']).__name__} {one['_id']}" for one in ODD])
async def test_ids_of_every_type_can_be_gone_on_from(bench: CloneBench, last: int) -> None:
    rows = await bench.base["odd"].find(after_id(ODD[last]["_id"])).sort("_id", 1).to_list()
    assert [repr(row["_id"]) for row in rows] == [repr(row["_id"]) for row in await _ids(bench)][last + 1 :]


async def _ids(bench: CloneBench) -> list[dict[str, Any]]:
    return await bench.base["odd"].find({}, {"_id": 1}).sort("_id", 1).to_list()


async def test_a_dump_is_real_bson_and_a_restore_of_it_is_the_base(bench: CloneBench, tmp_path: Path) -> None:
    await dump(bench.base, tmp_path / "dump", batch=50, tell=bench.tell, still_mine=bench.still_mine)
    place = tmp_path / "dump" / bench.base_name
    with (place / "goods.bson").open("rb") as file:
        assert [row["_id"] for row in decode_file_iter(file)] == list(range(300))
    assert (place / f"{file_name(WORDS)}.metadata.json").is_file()
    assert {oct(one.stat().st_mode & 0o777) for one in place.iterdir()} == {"0o600"}
    async with bench.clone() as clone:
        await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        filled = await restore(tmp_path / "dump", clone, batch=50, tell=bench.tell)
    assert filled == Filled("restored", 6, 319)
    await bench.is_the_same()


@pytest.mark.parametrize("crash", ["dump.batch", "dump.collection", "restore.batch"])
async def test_dump_and_restore_go_on_after_the_last_whole_document(bench: CloneBench, tmp_path: Path, crash: str) -> None:
    folder = tmp_path / "dump"

    async def attempt(claim: str) -> None:
        await dump(bench.base, folder, batch=40, tell=bench.tell, still_mine=bench.still_mine)
        async with bench.clone(claim) as clone:
            await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
            await restore(folder, clone, batch=40, tell=bench.tell)

    with crash_at(crash):
        await attempt("first")
    for half in (folder / bench.base_name).glob("*.bson"):
        if not half.with_name(half.name.replace(".bson", ".metadata.json")).exists():
            with half.open("ab") as file:
                file.write(b"\x40\x00\x00\x00\x10half of a document")
    await attempt("second")
    await bench.is_the_same()


async def test_a_restore_goes_on_in_no_other_dump_than_it_began_with(bench: CloneBench, tmp_path: Path) -> None:
    """As on another machine, which dumps the base anew."""

    async def attempt(claim: str) -> None:
        async with bench.clone(claim) as clone:
            await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
            folder = tmp_path / claim
            await dump(bench.base, folder, batch=40, tell=bench.tell, still_mine=clone.still_mine)
            await restore(folder, clone, batch=1, tell=bench.tell)

    with crash_at("restore.batch", hit=3):
        await attempt("first")
    await bench.base["big"].insert_one({"_id": -1, "data": b"shorter"})
    await attempt("second")
    await bench.is_the_same()


async def test_an_attempt_that_was_given_up_adds_nothing_to_the_files_of_the_next_one(bench: CloneBench, tmp_path: Path) -> None:
    async with bench.clone("first") as former, bench.clone("second") as clone:
        for one in (former, clone):
            await one.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        await dump(bench.base, tmp_path / "dump", batch=40, tell=bench.tell, still_mine=clone.still_mine)
        (tmp_path / "dump" / bench.base_name / "goods.metadata.json").unlink()
        with pytest.raises(CloneError, match="another attempt"):
            await dump(bench.base, tmp_path / "dump", batch=40, tell=bench.tell, still_mine=former.still_mine)
        await dump(bench.base, tmp_path / "dump", batch=40, tell=bench.tell, still_mine=clone.still_mine)
        await restore(tmp_path / "dump", clone, batch=40, tell=bench.tell)
    await bench.is_the_same()


async def test_a_damaged_dump_is_told_by_its_place_and_nothing_of_its_content(bench: CloneBench, tmp_path: Path) -> None:
    await dump(bench.base, tmp_path / "dump", batch=50, tell=bench.tell, still_mine=bench.still_mine)
    file = tmp_path / "dump" / bench.base_name / "goods.bson"
    file.write_bytes(file.read_bytes()[:-3])
    async with bench.clone() as clone:
        await clone.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        with pytest.raises(CloneError, match=r"goods\.bson is damaged at byte \d+") as told:
            await restore(tmp_path / "dump", clone, batch=50, tell=bench.tell)
    assert "Größe" not in told.value.message


@pytest.mark.parametrize("name", ["shop", "admin", "conman", "conman_temp_", "conman_temp_shop", "conman_temp_" + "g" * 32, ""])
async def test_no_other_database_is_ever_written_to_or_dropped(bench: CloneBench, name: str) -> None:
    with pytest.raises(ValueError, match="no database of a temp env"):
        CloneDatabase(await connection_of(bench.uri, "the server"), name, "ours")


async def test_a_clone_of_another_installation_is_neither_filled_nor_dropped(bench: CloneBench) -> None:
    async with bench.clone(installation="theirs") as theirs:
        await theirs.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
    async with bench.clone() as ours:
        with pytest.raises(CloneError, match="another installation"):
            await ours.take(bench.temp_env_id, "2026-01-01T00:00:00.000Z")
        with pytest.raises(CloneError, match="another installation"):
            await ours.drop()
    async with bench.clone(installation="theirs") as theirs:
        assert await theirs.drop()
        assert not await theirs.drop(), "what is gone is removed"


async def test_where_the_server_refuses_to_copy_the_documents_come_through_the_worker(
    bench: CloneBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    by_the_server = Copy._by_the_server

    async def noting(self: Copy, plan: Any, staging: str, means: clone_copy.Means) -> None:
        used.append(means.value)
        try:
            await by_the_server(self, plan, staging, means)
        except PyMongoError:
            used.append(f"no {means.value}")
            raise

    monkeypatch.setattr(Copy, "_by_the_server", noting)
    await _copied(bench, same_server=True)
    assert used.count("no out") == 1, "the embedded server knows no $out to another database, and is asked once"
    await bench.is_the_same()


async def test_a_later_attempt_goes_on_with_what_came_through_the_worker_where_the_server_refused(
    bench: CloneBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def refusing(self: Copy, plan: Any, staging: str, means: clone_copy.Means) -> None:
        asked.append(means.value)
        raise OperationFailure("no", 13)

    monkeypatch.setattr(Copy, "_by_the_server", refusing)
    with crash_at("clone.batch"):
        await _copied(bench, same_server=True, batch=1)
    bench.told.clear()
    await _copied(bench, "second", same_server=True)
    await bench.is_the_same()
    assert asked == ["out", "merge"], "what it refused is not asked of it again"
    assert bench.told[0] == (3, 319, "copies big"), "the first of the three had arrived"


@pytest.mark.parametrize(
    ("uri", "moved"),
    [
        ("mongodb://h/shop", "mongodb://h/conman_temp_x"),
        ("mongodb://h:1,i:2", "mongodb://h:1,i:2/conman_temp_x"),
        ("mongodb://h/?tls=true", "mongodb://h/conman_temp_x?tls=true"),
        ("mongodb://u:p%40@h/shop", "mongodb://u:p%40@h/conman_temp_x?authSource=shop"),
        ("mongodb://u:p@h/", "mongodb://u:p@h/conman_temp_x?authSource=admin"),
        ("mongodb://u:p@h/shop?authsource=staff&w=1", "mongodb://u:p@h/conman_temp_x?authsource=staff&w=1"),
        ("mongodb://u:p@h/shop?w=1;tls=true", "mongodb://u:p@h/conman_temp_x?w=1;tls=true;authSource=shop"),
        ("mongodb://u:p@h/?authMechanism=PLAIN", "mongodb://u:p@h/conman_temp_x?authMechanism=PLAIN&authSource=%24external"),
        ("mongodb://u:p@h/ldap?authMechanism=PLAIN", "mongodb://u:p@h/conman_temp_x?authMechanism=PLAIN&authSource=ldap"),
    ],
)
async def test_the_connection_to_a_clone_logs_in_where_the_base_does(uri: str, moved: str) -> None:
    assert (await connection_of(uri, "it")).to("conman_temp_x").uri == moved


@pytest.mark.parametrize(
    "uri",
    [
        "postgres://u:hush@h/x",
        "mongodb://u:hu@sh@h/x",
        "mongodb://",
        "mongodb://h/?authMechanism=MONGODB-AWS",
        "mongodb://h/?authMechanism=MONGODB-X509&tls=true",
        "mongodb://u:hush@h/?tls=true&tlsCertificateKeyFile=/etc/conman/key.pem",
        "mongodb://u:hush@h/?tls=true&tlsCAFile=/dev/stdin",
        "mongodb://u:hush@h/?tls=true; TLSCRLFILE =/etc/hosts",
        "mongodb+srv://u:hush@h.example.com/?srvAllowedHostsSuffix=internal.test",
        "mongodb://u:hush@10.0.0.1/x",
        "mongodb://u:hush@%2Ftmp%2Fmongodb-27017.sock/x",
    ],
)
async def test_a_connection_that_can_not_be_used_is_refused_without_being_shown(uri: str) -> None:
    with pytest.raises(CloneError) as told:
        await connection_of(uri, "the secret DB", allowed=("h:*", "*.example.com:27017"))
    assert "hush" not in told.value.message
    assert told.value.__cause__ is None


async def test_a_clone_is_read_where_it_is_written_whatever_its_app_is_told_to_do() -> None:
    told = await connection_of("mongodb://h/?readPreference=secondary&w=0&readConcernLevel=linearizable", "it")
    clone = CloneDatabase(told, temp_database(new_id()), "ours")
    own = clone.raw("goods")
    assert (own.read_preference, own.read_concern.level) == (ReadPreference.PRIMARY, "local")
    assert own.write_concern.document == {"w": "majority"}
    await clone.close()


async def test_servers_are_allowed_by_patterns_of_names_and_addresses() -> None:
    allowed = ("*.example.com:270??", "[2001:db8::*]:27017")
    for uri in ("mongodb://A.Example.com/x", "mongodb://a.example.com:27018/x", "mongodb://[2001:db8::7]/x"):
        await connection_of(uri, "it", allowed=allowed)
    for uri in ("mongodb://a.example.com:8080/x", "mongodb://a.example.com,b.example.org/x", "mongodb://[2001:db9::7]/x"):
        with pytest.raises(CloneError, match="CONMAN_TEMP_DATABASE_SERVERS"):
            await connection_of(uri, "it", allowed=allowed)
