"""What is risky about a changeset, found by rules alone: `analyze` answers with these where no model is configured (`spec.md` 8).

Each risk stands at a line of the head. A reference to what is gone stands where it breaks, which may be in a file that the
changeset leaves alone; a risk of the profile overrides has no file, and `OVERRIDES` in its place.

Everything is a function of the two versions: the same changeset has the same risks in the same order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from conman.domain.risk_rules_facts import CanonicalEnvironment, ChangedFile, Facts, Risk, Rule, Severity
from conman.domain.risk_rules_references import reference_risks
from conman.domain.risk_rules_secrets import find_secrets
from conman.domain.risk_rules_tree import tree_secrets
from conman.domain.risk_rules_values import value_risks
from conman.domain.semantic_diff_read import Parsed, Unparsed

OVERRIDES = "profile-overrides"
"""Where a risk of the changeset's profile overrides stands, as its route is called."""

_MARKER = re.compile(rb"^(?:<{7}|>{7})(?=[ \r\n]|\Z)", re.MULTILINE)
_TOO_MUCH = ("it is larger than", "it holds more than", "it is nested")
"""How the reasons begin for which a sound file is not read (`conman.domain.semantic_diff_read`)."""
_LINES = re.compile(r"in the lines \d+ and (\d+)")
_SEVERITIES = (Severity.HIGH, Severity.MEDIUM, Severity.LOW)
_RULES = tuple(Rule)
_PART = re.compile(r"[^a-z0-9]+")
_ALSO = {"production": ("prod", "prd"), "development": ("dev",), "staging": ("stage", "stg")}

ADVICE: dict[Rule, str] = {
    Rule.SECRET: "Take the secrets out of the files, keep them as secrets of a runtime profile, and replace them where they are"
    " used: whoever can read the repository has seen them.",
    Rule.MERGE_MARKER: "Resolve the merge and remove its markers.",
    Rule.UNREADABLE: "Mend the files that can't be read, before anything that depends on them is judged.",
    Rule.REFERENCE: "Change what still names something that is gone, or keep it until nothing does.",
    Rule.JUMP: "Confirm the numbers that changed by an order of magnitude: a mistaken unit or digit is the usual cause.",
    Rule.TYPE: "Check that every reader of a value takes its new type.",
    Rule.CANONICAL: "Let somebody who runs the canonical environment review this, and deploy it to another one first.",
}
"""What to do about the risks of each rule."""


def assess(facts: Facts) -> tuple[Risk, ...]:
    """All risks, the gravest first, then by file and line."""
    found = [risk for file in facts.files for risk in _of_file(file, facts.canonical)]
    found += reference_risks(facts)
    found += _of_overrides(facts)
    once = dict.fromkeys(found)
    return tuple(sorted(once, key=_order))


def advice(risks: Sequence[Risk]) -> list[str]:
    """What to do about them, one sentence for each rule that found something."""
    broken = frozenset(risk.rule for risk in risks)
    return [ADVICE[rule] for rule in _RULES if rule in broken]


def summary(files: int, risks: Sequence[Risk]) -> str:
    """The assessment in a sentence."""
    counts = Counter(risk.severity for risk in risks)
    changed = f"{files} {'file' if files == 1 else 'files'} changed"
    if not risks:
        return f"{changed}; the rules found no risk."
    told = ", ".join(f"{counts[severity]} {severity.value}" for severity in _SEVERITIES if counts[severity])
    return f"{changed}; the rules found {len(risks)} {'risk' if len(risks) == 1 else 'risks'} ({told})."


def _order(risk: Risk) -> tuple[int, str, int, int, str]:
    return _SEVERITIES.index(risk.severity), risk.file_path, risk.line or 0, _RULES.index(risk.rule), risk.message


def _of_file(file: ChangedFile, canonical: CanonicalEnvironment | None) -> Iterator[Risk]:
    yield from _secrets(file)
    markers = list(_markers(file))
    yield from markers
    if isinstance(file.after, Unparsed) and not markers:
        yield _unreadable(file, file.after)
    yield from value_risks(file)
    if canonical is not None:
        yield from _canonical(file, canonical)


def _secrets(file: ChangedFile) -> Iterator[Risk]:
    """Secrets in lines that are new; of one kind once a line."""
    if file.new is None or not file.added:
        return
    told: dict[tuple[int, str], None] = {}
    text = file.new.decode(errors="replace")
    line, counted = 1, 0
    for secret in find_secrets(text):
        line, counted = line + text.count("\n", counted, secret.start), secret.start
        end = line + text.count("\n", secret.start, secret.end)
        if secret.likely and not file.added.isdisjoint(range(line, end + 1)):
            told[line, secret.kind] = None
    if isinstance(file.after, Parsed):
        known = frozenset(line for line, _ in told)
        for secret in tree_secrets(file.after):
            lines = range(secret.lines[0], secret.lines[1] + 1)
            if secret.likely and not file.added.isdisjoint(lines) and known.isdisjoint(lines):
                told[lines[0], f"a secret (`{secret.name}`)"] = None
    for line, what in told:
        message = f"This looks like {what}: it stays in the repository's history even when it is removed later."
        yield Risk(Rule.SECRET, Severity.HIGH, file.path, line, message)


def _markers(file: ChangedFile) -> Iterator[Risk]:
    for match in _MARKER.finditer(file.new or b""):
        line = (file.new or b"").count(b"\n", 0, match.start()) + 1
        if line in file.added:
            yield Risk(Rule.MERGE_MARKER, Severity.HIGH, file.path, line, "An unresolved merge: this line is a marker of Git.")


def _unreadable(file: ChangedFile, why: Unparsed) -> Risk:
    """That the head's file can't be read: at the line that the parser names, in its reason maybe, else at the first new one."""
    if why.reason.startswith(_TOO_MUCH):
        return Risk(Rule.UNREADABLE, Severity.LOW, file.path, _first(file), f"The rules did not look into it: {why.reason}.")
    named = _LINES.search(why.reason)
    line = why.line or (int(named[1]) if named else _first(file))
    return Risk(Rule.UNREADABLE, Severity.HIGH, file.path, line, f"It can't be read: {why.reason}.")


def _canonical(file: ChangedFile, canonical: CanonicalEnvironment) -> Iterator[Risk]:
    """Files and settings that belong to the canonical environment by their name, and migrations that run there."""
    for folder in canonical.migration_paths:
        if file.path == folder or file.path.startswith(folder.rstrip("/") + "/"):
            message = f"A migration of {canonical.name}, the canonical environment: it runs on the data of end users."
            yield Risk(Rule.CANONICAL, Severity.MEDIUM, file.path, _first(file), message)
            return
    names = frozenset(_aliases(canonical.name))
    parts = [part for segment in file.path.lower().split("/") for part in (segment.partition(".")[0], *_PART.split(segment))]
    if not names.isdisjoint(parts):
        message = f"This file belongs to {canonical.name}, the canonical environment, by its name: end users see the change."
        yield Risk(Rule.CANONICAL, Severity.MEDIUM, file.path, _first(file), message)
        return
    found = file.differences
    if found is None:
        return
    changes, _, new = found
    for change in changes:
        named = next((step.label for step in change.way if step.label.lower() in names), None)
        if named is not None:
            line = new.lines(change.after.start, change.after.end)[0] if change.after is not None else _first(file)
            message = f"This changes `{named}`, the settings of the canonical environment by their name."
            yield Risk(Rule.CANONICAL, Severity.MEDIUM, file.path, line, message)
            return


def _first(file: ChangedFile) -> int | None:
    """The first line that is new; the first one where lines were only taken away, none where the file is gone."""
    if file.gone:
        return None
    return min(file.added, default=1)


def _aliases(name: str) -> Iterator[str]:
    lower = name.lower()
    yield lower
    yield _PART.sub("-", lower)
    yield from _ALSO.get(lower, ())


def _of_overrides(facts: Facts) -> Iterator[Risk]:
    for override in facts.overrides:
        if override.is_canonical:
            names = ", ".join(f"`{name}`" for name in override.names)
            message = f"It overrides {names} of {override.target}, the canonical environment: end users get it with the release."
            yield Risk(Rule.CANONICAL, Severity.HIGH, OVERRIDES, None, message)
