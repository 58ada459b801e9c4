"""Globs of the job file."""

from __future__ import annotations

import pytest

from byos_run.node.globs import Glob, Globs, Selection


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        pytest.param("*.out", "thermo.out", True, id="base name at the top"),
        pytest.param("*.out", "a/b/thermo.out", True, id="base name at any depth"),
        pytest.param("*.out", "a.out/x", False, id="not a directory's name"),
        pytest.param("a/*.out", "a/x.out", True, id="anchored"),
        pytest.param("a/*.out", "b/a/x.out", False, id="anchored only at the top"),
        pytest.param("a/*.out", "a/b/x.out", False, id="star stops at a slash"),
        pytest.param("a/**", "a/b/x.out", True, id="two stars do not"),
        pytest.param("a/**", "a", False, id="all below is not the directory"),
        pytest.param("a/", "a/b/c", True, id="trailing slash means all below"),
        pytest.param("**/x", "x", True, id="two stars and a slash may be nothing"),
        pytest.param("**/x", "a/b/x", True, id="or several directories"),
        pytest.param("**/x", "a/bx", False, id="but whole ones"),
        pytest.param("a/**/x", "a/x", True, id="nothing in the middle"),
        pytest.param("a/**/x", "a/b/c/x", True, id="several in the middle"),
        pytest.param("a/b**c", "a/b/d/c", True, id="two stars inside a name cross slashes"),
        pytest.param("**", "a/.b", True, id="everything"),
        pytest.param("*", ".hidden", True, id="dot-files match"),
        pytest.param("*.OUT", "x.out", False, id="case counts"),
        pytest.param("/x", "x", True, id="leading slash anchors"),
        pytest.param("/x", "a/x", False, id="leading slash anchors at the top only"),
        pytest.param("./x", "x", True, id="leading dot and slash anchor"),
        pytest.param("?.h5", "1.h5", True, id="one character"),
        pytest.param("a?b/c", "a/b/c", False, id="which is not a slash"),
        pytest.param("[a-c].h5", "b.h5", True, id="range"),
        pytest.param("[!a-c].h5", "b.h5", False, id="negated"),
        pytest.param("[^a-c].h5", "d.h5", True, id="negated by a caret"),
        pytest.param("x[!a]y/z", "x/y/z", False, id="a negated class is not a slash"),
        pytest.param("[]x]", "]", True, id="closing bracket first is a member"),
        pytest.param("[!]x]", "y", True, id="also when negated"),
        pytest.param("[a-]", "-", True, id="dash last is a member"),
        pytest.param("[z-a]", "m", False, id="backward range holds nothing"),
        pytest.param("[!z-a]", "m", True, id="negated backward range holds all"),
        pytest.param("[x", "[x", True, id="open bracket alone"),
        pytest.param("[!", "[!", True, id="open bracket and mark alone"),
        pytest.param("a+b(c).$", "a+b(c).$", True, id="characters of regular expressions"),
        pytest.param("a{b,c}", "ab", False, id="no braces"),
        pytest.param("a\\b", "a\\b", True, id="backslash is a character"),
        pytest.param("*.out", "a\nb.out", True, id="line feed in a name"),
        pytest.param("*.out", "\udcff.out", True, id="name that is not UTF-8"),
        pytest.param("*.out", "x.out\n", False, id="nothing after the end"),
    ],
)
def test_glob(glob: str, path: str, *, expected: bool) -> None:
    """A glob means what the contract says."""
    assert Glob(glob).matches(path) is expected


def test_exclude_beats_include() -> None:
    """A path that both name is left out."""
    selection = Selection.of(include=["**"], exclude=["*.tmp", "scratch/**"])

    assert [p for p in ("a.out", "a.tmp", "x/b.tmp", "scratch/x", "y/scratch/x") if selection.matches(p)] == [
        "a.out",
        "y/scratch/x",
    ]


def test_nothing_included() -> None:
    """Without include nothing is selected; an empty glob names nothing."""
    assert not Selection.of(include=["", "*.h5"], exclude=[]).matches("x")


def test_rank_is_the_first_match() -> None:
    """Globs of priority order paths by the first that matches; the rest comes last."""
    priority = Globs.of(["*.log", "restart*.rst"])

    assert sorted(["z", "restart2.rst", "a/x.log"], key=priority.rank) == ["a/x.log", "restart2.rst", "z"]
    assert priority.rank("z") == 2


def test_below_a_named_directory() -> None:
    """A glob that names a directory can be asked to mean all that lies in it."""
    keep = Globs.of(["results", "a/b"])

    assert [p for p in ("results/x/y", "q/results/x", "a/b/c", "a/c") if keep.matches_or_lies_below(p)] == [
        "results/x/y",
        "q/results/x",
        "a/b/c",
    ]
