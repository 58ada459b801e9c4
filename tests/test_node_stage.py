"""The stage beside the case: found again, never shared, never followed."""

from __future__ import annotations

import os

import pytest
from tests.archives.room import tree

from byos_run.errors import NodeUnfit, UsageError
from byos_run.node import stage as stages
from byos_run.node.files import Snapshot, identity_of
from byos_run.node.scratch import Room, stage_of, stages_of


def dropped(stage):
    """As a killed process lets go."""
    for fd in (stage.fd, stage._notes_fd):
        if fd >= 0:
            os.close(fd)


def test_what_a_dead_owner_left_is_found(tmp_path):
    """Under the same name, with what was noted; a stage that was left in good order is gone."""
    case = tmp_path / "case"
    first = stages.enter(case, is_alone=False)
    (first.path / "x").write_bytes(b"x")
    first.note(["one"])
    first.note(["two"])
    dropped(first)
    with open(f"{first.path}.files", "ab") as torn:
        torn.write(b'\n["torn')
    second = stages.enter(case, is_alone=False)
    second.note(["three"])

    assert (True, False, first.path) == (first.is_new, second.is_new, second.path)
    assert [["one"], ["two"], ["three"]] == list(second.notes())
    second.leave()
    assert [] == stages_of(case)


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_stage_that_somebody_holds_is_not_shared(tmp_path, is_alone):
    """A fetch is told so; a run, which is alone in its directory, takes another."""
    held = stages.enter(tmp_path / "case", is_alone=False)
    if is_alone:
        other = stages.enter(tmp_path / "case", is_alone=True)
        assert held.path != other.path
        other.leave()
    else:
        with pytest.raises(UsageError, match="another byos-run is fetching"):
            stages.enter(tmp_path / "case", is_alone=False)
    assert held.path.is_dir()
    held.leave()
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_stands_in_its_place_goes(tmp_path, kind):
    """It is unlinked, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").touch()
    path = stage_of(tmp_path / "case")
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    stage = stages.enter(tmp_path / "case", is_alone=False)

    assert stage.is_new
    assert path == stage.path
    assert {} == tree(stage.path)
    stage.leave()
    assert ["x"] == os.listdir(outside)
    assert ["outside"] == os.listdir(tmp_path)


def test_notes_go_through_no_link(tmp_path):
    """Neither read nor written through a link or a second name."""
    (tmp_path / "outside").write_bytes(b'["believed"]')
    path = stage_of(tmp_path / "case")
    path.mkdir()
    notes = path.with_name(f"{path.name}.files")
    for make in (notes.symlink_to, notes.hardlink_to if hasattr(notes, "hardlink_to") else notes.symlink_to):
        make(tmp_path / "outside")
        stage = stages.enter(tmp_path / "case", is_alone=False)
        assert [] == list(stage.notes())
        stage.note(["new"])
        dropped(stage)
        assert b'["believed"]' == (tmp_path / "outside").read_bytes()
        notes.unlink(missing_ok=True)


def test_only_what_was_proved_stays(tmp_path):
    """A file that changed since it was proved takes all others along."""
    path = stage_of(tmp_path / "case")
    (path / "d").mkdir(parents=True)
    for name in ("a", "d/b", "c"):
        (path / name).write_bytes(b"x")
    stage = stages.enter(tmp_path / "case", is_alone=False)
    good = [(name, identity_of(os.stat(path / name))) for name in ("a", "d/b")]

    assert stage.clear(Snapshot.of(good))
    assert {b"a": b"x", b"d": "/", b"d/b": b"x"} == tree(path)
    (path / "a").write_bytes(b"yy")
    assert not stage.clear(Snapshot.of(good))
    assert {} == tree(path)
    stage.leave()


def test_what_cannot_be_cleaned_is_said(tmp_path, monkeypatch):
    """71 that names it."""
    stage_of(tmp_path / "case").mkdir()
    stage = stages.enter(tmp_path / "case", is_alone=False)
    (stage.path / "x").touch()
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    with pytest.raises(NodeUnfit, match="x: operation not permitted"):
        stage.clear(Snapshot.of(()))
    monkeypatch.undo()
    stage.leave()


@pytest.mark.parametrize("known", [True, False])
def test_a_case_is_a_stage_again_only_if_the_journal_knows_it(tmp_path, known):
    """Its identity is what the journal says; another directory in its place is left alone."""
    case = tmp_path / "case"
    case.mkdir()
    status = case.stat()
    room = Room(case, identity=(status.st_dev, status.st_ino) if known else None)

    assert known == stages.is_left(room)
    assert known == stage_of(case).is_dir()
    assert known != case.exists()


def test_a_stage_that_took_its_place_is_not_deleted(tmp_path):
    """The owner of a stage that became the case leaves the next one's alone."""
    room = Room(tmp_path / "case")
    first = stages.enter(room.case, is_alone=False)
    first.become(room)
    second = stages.enter(room.case, is_alone=False)
    first.leave()

    assert second.path.is_dir()
    second.leave()
    assert ["case"] == os.listdir(tmp_path)
