"""README, --help and code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from byos_run.errors import EXIT_CODES
from byos_run.page.hints import HINTS, SOLVER_HINTS
from byos_run.steps.settle import help_of_keys

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def test_the_key_table_is_that_of_the_help():
    """The job file's reference in README is what `byos-run run --help` prints."""
    assert help_of_keys().rstrip() in README


def test_exit_codes_agree():
    """Each code of the table in the code stands in README with the same meaning."""
    told = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*?) \|", README, re.MULTILINE)}

    assert set(EXIT_CODES) == set(told)
    for code, meaning in EXIT_CODES.items():
        assert meaning.split(";")[0].split("(")[0].strip() in told[code]


def test_troubles_are_those_of_the_pages():
    """What README tells to do about a code is what the pages tell; each of our codes is there."""
    told = {int(code): what for code, what in re.findall(r"^\| \*\*(\d+)\*\*.*\| (.*?) \|$", README, re.MULTILINE)}

    assert {**HINTS, **SOLVER_HINTS} == told
    assert set(EXIT_CODES) - {0} == set(HINTS)


def test_pictures_exist():
    """What README shows is in the repository, and light."""
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', README)

    assert shown
    for name in shown:
        assert 0 < (TOP / name).stat().st_size < 150_000, name


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)`|^make (\w+)", README, re.MULTILINE), ids="".join)
def test_make_targets_exist(target):
    """What README tells a newcomer to make can be made."""
    assert re.search(rf"^{''.join(target)}:", (TOP / "Makefile").read_text(), re.MULTILINE)
