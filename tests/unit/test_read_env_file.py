"""A profile's file is read back as a shell would read it, and never where a shell would do more (`spec.md` 12)."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.profile import env_file, read_env_file

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z")


@given(st.dictionaries(NAMES, TEXTS, max_size=5))
def test_what_was_written_is_read_back(variables: dict[str, str]) -> None:
    assert read_env_file(env_file(variables)) == variables


BY_HAND = '# a note\n\nexport A=9090 # the port\n  B="two words"\nC=a\\\'b\'c d\'"e"\nD=\nA=9091\n'


def test_lines_written_by_hand_are_read_as_a_shell_reads_them() -> None:
    seen = read_env_file(BY_HAND)
    assert seen == {"A": "9091", "B": "two words", "C": "a'bc de", "D": ""}
    said = subprocess.run(["sh", "-c", f'{BY_HAND}printf "%s|" "$A" "$B" "$C" "$D"'], capture_output=True, text=True, check=True)
    assert said.stdout == "9091|two words|a'bc de||"


@pytest.mark.parametrize(
    "line",
    [
        "A=$B",
        "A=`id`",
        'A="$B"',
        "A='open",
        "A=b c",
        "A=b;id",
        "A=b&",
        "rm -rf x",
        "A = b",
        "1A=b",
        "A=~",
        "A=(b)",
        "A=" + "a" * 9999 + "$",
    ],
)
def test_a_line_by_which_a_shell_would_do_more_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not KEY='value'$"):
        read_env_file(f"FINE='1'\n{line}\n")
