"""Kept listings: what was asked for last stays, within a bound, and nothing that failed."""

from __future__ import annotations

import pytest

from conman.git.adapter import EntryType, TreeEntry
from conman.git.listings import Folder, Listings


def _entries(count: int) -> list[TreeEntry]:
    return [TreeEntry(f"file{number}", EntryType.BLOB, 0o100644, "0" * 40, number) for number in range(count)]


def _folder(name: str, *, path: str = "", recursive: bool = True) -> Folder:
    return Folder("team/app.git", name, path, recursive)


class Reader:
    """Counts how often each tree was read."""

    def __init__(self, listings: Listings, length: int) -> None:
        self.listings = listings
        self.length = length
        self.read: list[str] = []

    def look(self, name: str) -> list[TreeEntry]:
        def read() -> list[TreeEntry]:
            self.read.append(name)
            return _entries(self.length)

        return self.listings.get(_folder(name), read)


def test_a_listing_is_read_once() -> None:
    reader = Reader(Listings(10), 3)
    assert reader.look("a") == reader.look("a") == _entries(3)
    assert reader.read == ["a"]


def test_a_caller_may_change_what_it_got() -> None:
    reader = Reader(Listings(10), 3)
    reader.look("a").clear()
    reader.look("a").clear()
    assert reader.look("a") == _entries(3)


def test_the_one_that_was_not_asked_for_longest_makes_room() -> None:
    reader = Reader(Listings(9), 3)
    for name in ("a", "b", "c", "a", "d", "a", "c", "b"):
        reader.look(name)
    assert reader.read == ["a", "b", "c", "d", "b"]


@pytest.mark.parametrize(("length", "reads"), [(9, 1), (10, 1), (11, 2)])
def test_a_listing_longer_than_the_bound_is_not_kept_and_drives_out_no_other(length: int, reads: int) -> None:
    listings = Listings(10)
    long = Reader(listings, length)
    long.look("long")
    long.look("long")
    assert len(long.read) == reads
    short = Reader(Listings(10), 1)
    short.look("short")
    Reader(short.listings, 11).look("long")
    short.look("short")
    assert short.read == ["short"]


def test_folders_of_one_tree_and_both_ways_to_list_them_are_kept_apart() -> None:
    listings = Listings(10)
    for count, folder in enumerate([_folder("t"), _folder("t", path="a"), _folder("t", recursive=False)]):
        assert listings.get(folder, lambda count=count: _entries(count)) == _entries(count)


def test_what_could_not_be_read_is_read_again() -> None:
    listings = Listings(10)

    def fail() -> list[TreeEntry]:
        raise KeyError("an object is missing")

    with pytest.raises(KeyError):
        listings.get(_folder("a"), fail)
    assert listings.get(_folder("a"), lambda: _entries(2)) == _entries(2)
