"""Walking commits in the in-memory adapter."""

from __future__ import annotations

import heapq

from conman.git.memory_merge import merge_files
from conman.git.memory_objects import Files, ObjectStore


class History:
    """The commits of a store by their parents."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def ancestors(self, sha: str) -> set[str]:
        """A commit and all that it descends from."""
        found: set[str] = set()
        pending = [sha]
        while pending:
            one = pending.pop()
            if one not in found:
                found.add(one)
                pending.extend(self._store.commit(one).parents)
        return found

    def newest_first(self, head: str, exclude: str | None) -> list[str]:
        """Commits of `head` that `exclude` lacks: children before parents, and the newer first where that leaves a choice."""
        within = self.ancestors(head) - (self.ancestors(exclude) if exclude is not None else set())
        children = dict.fromkeys(within, 0)
        for sha in within:
            for parent in within.intersection(self._store.commit(sha).parents):
                children[parent] += 1
        ready = [(-self._time(sha), sha) for sha in within if not children[sha]]
        heapq.heapify(ready)
        found: list[str] = []
        while ready:
            _, sha = heapq.heappop(ready)
            found.append(sha)
            for parent in within.intersection(self._store.commit(sha).parents):
                children[parent] -= 1
                if not children[parent]:
                    heapq.heappush(ready, (-self._time(parent), parent))
        return found

    def merge_bases(self, one: str, two: str) -> list[str]:
        """The common ancestors that no other common ancestor descends from, newest first."""
        common = self.ancestors(one) & self.ancestors(two)
        older = {old for sha in common for parent in self._store.commit(sha).parents for old in self.ancestors(parent)}
        return sorted(common - older, key=lambda sha: (-self._time(sha), sha))

    def base_files(self, one: str, two: str) -> Files:
        """What a merge of two commits compares them with: their merge base, or the merge of several, oldest first."""
        bases = self.merge_bases(one, two)[::-1]
        if not bases:
            return {}
        first, *others = bases
        files = self._store.files(self._store.commit(first).tree)
        for other in others:
            theirs = self._store.files(self._store.commit(other).tree)
            files = merge_files(self._store, self.base_files(first, other), files, theirs).files
        return files

    def _time(self, sha: str) -> int:
        return int(self._store.commit(sha).committer.split(b" ")[-2])
