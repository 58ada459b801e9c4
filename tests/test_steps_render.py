"""Values go into case files, bytes for bytes, and nothing else changes."""

from __future__ import annotations

import os

import pytest

from byos_run.errors import BadInput, UsageError
from byos_run.model import TemplateSettings
from byos_run.steps.render import render, rendered_line


@pytest.fixture
def case(tmp_path):
    (tmp_path / "case").mkdir()
    return tmp_path / "case"


def filled(case, content, **values):
    """What becomes of a file with *content*."""
    (case / "inputs.in").write_bytes(content)
    done = render(TemplateSettings(("inputs.in",), values), case=case)
    return (case / "inputs.in").read_bytes(), done


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"angle ${angle}\r\n${ angle }${angle}\n", b"angle 26\r\n2626\n"),
        (b"\xef\xbb\xbf# gr\xf6\xdfe ${angle}\x1a\xff", b"\xef\xbb\xbf# gr\xf6\xdfe 26\x1a\xff"),
        (b"${step} $angle {angle} $${angle} ${angle", b"${step} $angle {angle} $26 ${angle"),
        (b"${${angle}}", b"${26}"),
        (b"", b""),
    ],
    ids=["line-ends", "latin-1", "what-stays", "nested", "empty"],
)
def test_values_replace_their_names_and_nothing_else(case, content, found):
    """Line ends, encodings and what only looks like it stay as they are."""
    assert found == filled(case, content, angle="26")[0]


def test_values_are_texts_and_not_read_again(case):
    """No escape, no second round; they go in as UTF-8."""
    content, _ = filled(case, b"${a}|${b}", a=r"${b}\1\n", b="größe")

    assert r"${b}\1\n|größe".encode() == content


def test_what_was_filled_in_and_what_not_is_told(case):
    """A name without a value stays, since solvers have such variables too; a value that nothing names is told as well."""
    _, done = filled(case, b"${angle} ${angle} ${steps} ${steps}", angle="26", angel="27")

    assert (("inputs.in",), 2, ("steps",), ("angel",)) == (done.files, done.replaced, done.left, done.unused)
    assert (
        "filled in 2 values in 1 case file: inputs.in; left, without a value: ${steps}; named in no file: ${angel}"
        == rendered_line(done)
    )


def test_only_what_changes_is_written(case):
    """Mode stays; a file that names no value is the same file afterwards; a hard link elsewhere keeps its content."""
    for name in ("a.in", "b.in"):
        (case / name).write_bytes(b"${angle}" if name == "a.in" else b"none")
        (case / name).chmod(0o440)
    os.link(case / "a.in", case / "other.txt")
    before = os.stat(case / "b.in")
    render(TemplateSettings(("*.in",), {"angle": "1"}), case=case)

    assert (b"1", 0o100440) == ((case / "a.in").read_bytes(), os.stat(case / "a.in").st_mode)
    assert b"${angle}" == (case / "other.txt").read_bytes()
    assert before == os.stat(case / "b.in")
    assert ["a.in", "b.in", "other.txt"] == sorted(os.listdir(case))


def test_a_name_is_found_at_the_border_of_two_blocks(case):
    """Files larger than memory is meant to hold are read by whole lines."""
    line = b"x" * 70 + b"${angle}\n"
    content, done = filled(case, line * 200_000, angle="3")

    assert (200_000, b"x" * 70 + b"3\n") == (done.replaced, content[-72:])


def test_what_cannot_be_filled_in_is_refused_before_anything_changes(case):
    """A glob that names no file, a binary file, a link that leads elsewhere."""
    (case / "inputs.in").write_bytes(b"${angle}")
    (case / "mesh.h5").write_bytes(b"\x89HDF\r\n\0")
    (case / "link.in").symlink_to("/etc/passwd")
    for files, kind, reason in (
        (("inputs.in", "missing.in", "sub/*.in"), UsageError, '"missing.in" names no file of the case'),
        (("inputs.in", "mesh.h5"), BadInput, "mesh.h5 is binary"),
        (("inputs.in", "link.in"), BadInput, "link.in is a link"),
    ):
        with pytest.raises(kind, match=reason):
            render(TemplateSettings(files, {"angle": "1"}), case=case)
        assert b"${angle}" == (case / "inputs.in").read_bytes()


def test_without_files_nothing_is_looked_at(case):
    """Values alone change nothing."""
    assert ("angle",) == render(TemplateSettings((), {"angle": "1"}), case=case / "gone").unused
