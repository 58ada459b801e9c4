"""The part of the matrix of nodes that needs no other system: every broken surrounding, many at once, killed, cut."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from tests.nodes import places, rows
from tests.nodes.surroundings import surroundings

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [each.name for each in surroundings("")]


@pytest.fixture
def node() -> places.Node:
    """The newest Python here that the file is for."""
    found = [each for each in places.pyenv() if each.fits()] or [places.described("the system's", "/usr/bin/python3")]
    return found[-1]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_a_broken_surrounding(node: places.Node, shipped_file: Path, number: int) -> None:
    """It starts and settles all the same, or says in its own words why it can't, and leaves nothing."""
    row = rows.in_surrounding(node, file=shipped_file, number=number)

    assert row.is_good, row.seen


def test_thirty_two_at_once(node: places.Node, shipped_file: Path) -> None:
    """As many starts as a big node has slots give one answer and leave nothing."""
    row = rows.at_once(node, file=shipped_file, count=32)

    assert row.is_good, row.seen


def test_cut(node: places.Node, shipped_file: Path) -> None:
    """Cut anywhere behind its first two words it ends with a word and a failure, by sh."""
    (row,) = islice(rows.cut(node, file=shipped_file), 1)

    assert row.is_good, row.seen
