"""README, --help and code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from byos_run.errors import EXIT_CODES
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


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)`|^make (\w+)", README, re.MULTILINE), ids="".join)
def test_make_targets_exist(target):
    """What README tells a newcomer to make can be made."""
    assert re.search(rf"^{''.join(target)}:", (TOP / "Makefile").read_text(), re.MULTILINE)
