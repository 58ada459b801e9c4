"""The purge: what may go goes, nothing else, and the certificate tells both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

import pytest
from tests.test_node_neighbour import another_run
from tests.undeletable import can_be_immutable, can_mount, immutable, mounted

from byos_run.model import Attempt, Job, Left, Output, Place, Published, PublishSettings, Purged, PurgeSettings, S3Url
from byos_run.node.files import Snapshot, identity_of, snapshot
from byos_run.node.journal import open_journal
from byos_run.node.scratch import Room, become, claim_room, stage_of
from byos_run.steps.purge import Grounds, certificate, last, purge

JOB = Job(input=(S3Url("b", "in.zip"),), output=S3Url("b", "out/"), command=("solve",))
LAID_DOWN = ("byos-run", "byos.toml", "config", "template.txt", ".hidden", "d/inputs.csv")


@dataclass
class Scene:
    """A run directory as a run goes through it: laid down, fetched, solved, published."""

    run: Path
    place: Place
    room: Room
    job: Job = JOB
    laid_down: Snapshot = field(default_factory=lambda: Snapshot.of(()))
    fetched: Snapshot = field(default_factory=lambda: Snapshot.of(()))
    published: list[Published] = field(default_factory=list)

    def acknowledge(self, *paths: Path) -> None:
        """The bucket has these files as they are now."""
        for path in paths:
            root = self.room.case if self.room.case in path.parents else self.run
            identity = identity_of(path.stat())
            output = Output(str(path.relative_to(root)), "key", identity, root)
            self.published.append(Published(output, "key", identity.size_bytes, "", "", identity, 0.0))

    def purge(self, **settings: object) -> Purged:
        job = replace(self.job, purge=PurgeSettings(**settings))  # type: ignore[arg-type]  # each test names its own
        return purge(job=job, place=self.place, room=self.room, grounds=self.grounds)

    @property
    def grounds(self) -> Grounds:
        return Grounds(self.fetched, self.laid_down, self.published)

    def tree(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.run))
            for path in self.run.rglob("*")
            if not path.is_dir() or (not path.is_symlink() and not os.listdir(path))
        )


Make = Callable[..., Scene]
Means = Callable[[Path], AbstractContextManager[None]]


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a scene in which the solver has written ``out.h5`` and ``d/log.out``, both acknowledged."""

    def made(*, on_platform: bool = True, scratch: str = "case", extra: Sequence[str] = ()) -> Scene:
        run = tmp_path / "run"
        for name in (*LAID_DOWN, *extra):
            write(run / name)
        place = Place(
            run_directory=run,
            environ={"RESCALE_JOB_ID": "x"} if on_platform else {},
            shipped_file=run / "byos-run",
            unpacked=write(tmp_path / "unpacked/x").parent,
        )
        laid_down = snapshot(run, skip={".byos"})
        write(run / ".byos/journal.jsonl")
        room = claim_room(scratch=scratch, run_directory=run, environ={}, run_id="1" * 32)
        stage = stage_of(room.case)
        stage.mkdir()
        write(stage / "inputs.in")
        write(stage / "mesh/surface.dat")
        room = become(stage, room)
        scene = Scene(run, place, room, laid_down=laid_down, fetched=snapshot(room.case))
        scene.acknowledge(write(room.case / "out.h5"), write(room.case / "d/log.out"))
        return scene

    return made


def reasons(purged: Purged) -> dict[str, tuple[str, bool]]:
    return {item.path: (item.reason, item.expected) for item in purged.left}


def test_on_the_platform_nothing_is_left(make: Make) -> None:
    """Inputs, outputs, links, job file, secrets and the program go; the journal is the last."""
    scene = make()
    (scene.room.case / "link").symlink_to("/etc/passwd")
    os.mkfifo(scene.room.case / "pipe")
    (scene.room.case / "empty").mkdir()
    write(scene.run / ".byos-stage-old/half")

    purged = scene.purge()

    assert (scene.tree(), purged.left, purged.complete, purged.journal_stays) == (
        [".byos/journal.jsonl"],
        (),
        True,
        False,
    )
    assert (purged.files, purged.lost) == (13, ())
    assert last(job=scene.job, place=scene.place, purged=purged) == []
    assert os.listdir(scene.run) == []
    assert os.listdir(scene.run.parent) == ["run"]


def test_elsewhere_only_ours_goes(make: Make) -> None:
    """The case and stages go; what lay in the run directory, and what appeared there, stays."""
    scene = make(on_platform=False)
    write(scene.run / "stray")
    write(scene.run / ".byos-stage-old/half")

    purged = scene.purge()
    last(job=scene.job, place=scene.place, purged=purged)

    assert scene.tree() == sorted([*LAID_DOWN, "stray"])
    assert (purged.left, purged.complete) == ((), True)


def test_a_case_that_we_did_not_make(make: Make) -> None:
    """A run that had nothing to do does not touch the directory that bears the name of its case."""
    scene = make(on_platform=False)
    scene.room = Room(scene.run / "case")

    scene.purge()

    assert "case/inputs.in" in scene.tree()


@pytest.mark.parametrize("on_platform", [True, False], ids=["platform", "elsewhere"])
def test_nothing_unacknowledged_goes(make: Make, *, on_platform: bool) -> None:
    """What the bucket lacks, or has in another state, stays, and with it all that the next start needs."""
    scene = make(on_platform=on_platform)
    write(scene.room.case / "new")
    write(scene.room.case / "out.h5", "changed since")
    write(scene.room.case / "inputs.in", "changed since the fetch")
    write(scene.run / "stray")

    purged = scene.purge()
    last(job=scene.job, place=scene.place, purged=purged)

    lacking = ["case/inputs.in", "case/new", "case/out.h5", *(["stray"] if on_platform else [])]
    kept = [".byos/journal.jsonl", "byos-run", "byos.toml"]
    others = [] if on_platform else ["stray", *(path for path in LAID_DOWN if path not in kept)]
    assert scene.tree() == sorted([*lacking, *kept, *others])
    assert [path for path, (_, expected) in reasons(purged).items() if not expected] == lacking
    assert (purged.complete, purged.journal_stays) == (False, True)
    assert not (scene.run.parent / "unpacked").exists()


def test_the_next_start_finishes(make: Make) -> None:
    """Once the bucket has the rest, a second purge leaves nothing."""
    scene = make()
    write(scene.room.case / "new")
    scene.purge()
    scene.acknowledge(scene.room.case / "new")

    purged = scene.purge()

    assert (scene.tree(), purged.left) == ([".byos/journal.jsonl"], ())


@pytest.mark.parametrize("path", ["case/x.tmp", "x.tmp", "case/not-included"])
def test_what_is_left_out_goes(make: Make, path: str) -> None:
    """What include or exclude leave out needs no acknowledgement."""
    scene = make()
    scene.job = replace(scene.job, publish=PublishSettings(include=("*.h5", "*.out"), exclude=("*.tmp",)))
    write(scene.run / path)

    assert (scene.purge().left, scene.tree()) == ((), [".byos/journal.jsonl"])


def test_include_does_not_bind_outside_the_case(make: Make) -> None:
    """What appeared in the run directory is an output whatever include says."""
    scene = make()
    scene.job = replace(scene.job, publish=PublishSettings(include=("*.h5", "*.out")))
    scene.acknowledge(write(scene.run / "acknowledged"))
    write(scene.run / "stray")

    assert [item.path for item in scene.purge().left if not item.expected] == ["stray"]


def test_an_input_of_the_platform_that_was_changed(make: Make) -> None:
    """It is not what was laid down any more, so it stays until the bucket has it."""
    scene = make()
    write(scene.run / "template.txt", "changed")
    assert [item.path for item in scene.purge().left if not item.expected] == ["template.txt"]
    scene.acknowledge(scene.run / "template.txt")
    assert scene.purge().left == ()


def test_always(make: Make) -> None:
    """With "always" everything goes, and what the bucket lacked is listed as lost."""
    scene = make()
    write(scene.room.case / "new")
    write(scene.run / "stray")

    purged = scene.purge(when="always")

    assert scene.tree() == [".byos/journal.jsonl"]
    assert (purged.lost, purged.complete, purged.journal_stays) == (("case/new", "stray"), True, False)


def test_never(make: Make) -> None:
    """With "never" nothing goes but the unpacked program, and that is told."""
    scene = make()
    before = scene.tree()
    scene.job = replace(scene.job, purge=PurgeSettings(when="never"))

    purged = scene.purge(when="never")
    last(job=scene.job, place=scene.place, purged=purged)

    assert (scene.tree(), purged.files, purged.complete) == (before, 0, True)
    assert not (scene.run.parent / "unpacked").exists()


@pytest.mark.parametrize(
    ("glob", "kept"),
    [
        pytest.param("*.out", ["case/d/log.out"], id="base name"),
        pytest.param("d/*.out", ["case/d/log.out"], id="anchored at the case"),
        pytest.param("case/d/*", ["case/d/log.out"], id="anchored at the run directory"),
        pytest.param("mesh", ["case/mesh/surface.dat"], id="a directory with all below"),
        pytest.param("case/d/", ["case/d/log.out"], id="all below a directory"),
        pytest.param(
            "case", ["case/d/log.out", "case/inputs.in", "case/mesh/surface.dat", "case/out.h5"], id="the case"
        ),
        pytest.param("template.txt", ["template.txt"], id="an input"),
    ],
)
def test_keep(make: Make, glob: str, kept: list[str]) -> None:
    """What is to be kept stays where it is, and that is no failure."""
    scene = make()

    purged = scene.purge(keep=(glob,))

    assert scene.tree() == sorted([".byos/journal.jsonl", *kept])
    assert purged.complete
    assert {reason for reason, _ in reasons(purged).values()} == {"purge.keep"}


def test_secrets_go_even_if_outputs_stay(make: Make) -> None:
    """The next start needs the job file and the program, and never the keys of this one."""
    scene = make()
    write(scene.run / "config", "changed since")
    write(scene.room.case / "new")

    scene.purge()

    assert "config" not in scene.tree()


def test_the_platforms_log_stays(make: Make) -> None:
    """In the run directory; a file of that name in the case is an output like any other."""
    scene = make(extra=["process_output.log"])
    write(scene.run / "process_output.log", "grows")
    write(scene.room.case / "process_output.log")

    purged = scene.purge()

    assert reasons(purged)["process_output.log"] == ("the platform's own log", True)
    assert reasons(purged)["case/process_output.log"][1] is False


def test_what_others_write_stays(make: Make) -> None:
    """A file that a process outside the run has open for writing is left, and that is no failure."""
    scene = make(extra=["other.log"])
    with subprocess.Popen(
        ["sh", "-c", "exec 3>>other.log 4>case/theirs; echo; read line"],
        cwd=scene.run, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        purged = scene.purge()
        writer.communicate(b"\n")

    assert scene.tree() == [".byos/journal.jsonl", "case/theirs", "other.log"]
    assert purged.complete
    assert set(reasons(purged).values()) == {(f"process {writer.pid} has it open for writing", True)}


def test_our_own_output_stays(make: Make) -> None:
    """The file behind our standard output is left whatever its name."""
    scene = make()
    script = """
from pathlib import Path
from byos_run.model import *
from byos_run.node.files import Snapshot
from byos_run.node.scratch import Room
from byos_run.steps.purge import *
none, run = Snapshot.of(()), Path.cwd()
print("line", flush=True)
job = Job(input=(), output=S3Url("b", ""), command=(), purge=PurgeSettings(when="always"))
purge(job=job, place=Place(run, {"RESCALE_JOB_ID": "x"}), room=Room(run / "case"), grounds=Grounds(none, none, ()))
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open(scene.run / "job.log", "w", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-c", script], cwd=scene.run, stdout=log, env=environ, check=True)

    assert scene.tree() == [".byos/journal.jsonl", "job.log"]
    assert (scene.run / "job.log").read_text() == "line\n"


def test_a_neighbours_run_is_never_touched(make: Make) -> None:
    """A directory below ours in which another run lives stays whole; a dead one's goes."""
    scene = make(extra=["live/byos.toml", "dead/byos.toml"])
    for name in ("live", "dead"):
        (scene.run / name / ".byos").mkdir()
    open_journal(scene.run / "dead", run_id="dead").close()
    scene.laid_down = snapshot(scene.run, skip={".byos", "case"})
    with another_run(scene.run / "live/.byos"):
        purged = scene.purge()

    assert reasons(purged) == {"live": ("run theirs is at work there", True)}
    assert scene.tree() == [".byos/journal.jsonl", "live/.byos/marker.json", "live/byos.toml"]


def test_hard_links_all_go(make: Make) -> None:
    """That one name of a file is deleted does not make its other names look changed."""
    scene = make()
    for name in ("a", "b", "c"):
        os.link(scene.room.case / "out.h5", scene.room.case / name)
    scene.published.clear()
    scene.acknowledge(*(scene.room.case / name for name in ("a", "b", "c", "out.h5", "d/log.out")))

    assert scene.purge().left == ()


def test_scratch_outside(make: Make) -> None:
    """The scratch directory goes with its marker, and the base that was made for it."""
    scene = make(scratch="../base")
    assert scene.room.scratch is not None
    write(scene.room.scratch / ".byos-stage-old/half")

    purged = scene.purge()

    assert (purged.left, scene.tree()) == ((), [".byos/journal.jsonl"])
    assert not (scene.run.parent / "base").exists()


def test_scratch_outside_keeps_what_the_bucket_lacks(make: Make) -> None:
    """And its marker, so that the next start may finish it."""
    scene = make(scratch="../base")
    new = write(scene.room.case / "new")

    purged = scene.purge()

    assert new.exists()
    assert [item.path for item in purged.left if not item.expected] == [str(new)]
    scene.acknowledge(new)
    assert scene.purge().left == ()
    assert not (scene.run.parent / "base").exists()


def test_what_is_kept_of_a_scratch_outside_comes_home(make: Make) -> None:
    """Files to keep are left in the run directory, where the DOE looks for them."""
    scene = make(scratch="../base")

    purged = scene.purge(keep=("*.out",))

    assert scene.tree() == [".byos/journal.jsonl", "case/d/log.out"]
    assert reasons(purged) == {"case/d/log.out": ("purge.keep", True)}
    assert not (scene.run.parent / "base").exists()


def test_another_directory_in_the_cases_place(make: Make) -> None:
    """It is not what we made: it stays, and the purge is incomplete."""
    scene = make()
    scene.room.case.rename(scene.run.parent / "moved")
    write(scene.room.case / "precious")

    purged = scene.purge()

    assert scene.tree() == [".byos/journal.jsonl", "case/precious"]
    assert reasons(purged) == {"case": ("another directory has taken the case's place", False)}


def test_a_link_in_the_cases_place(make: Make) -> None:
    """What it leads to stays."""
    scene = make()
    scene.room.case.rename(scene.run.parent / "moved")
    scene.room.case.symlink_to(scene.run.parent / "moved")

    purged = scene.purge()

    assert not purged.complete
    assert (scene.run.parent / "moved/out.h5").exists()


@pytest.mark.parametrize("means", [immutable] if can_be_immutable() else [])
def test_what_cannot_be_deleted(make: Make, means: Means) -> None:
    """It stays, is listed, makes the purge incomplete, and does not keep the journal."""
    scene = make()
    with means(scene.room.case / "out.h5"):
        scene.acknowledge(scene.room.case / "out.h5")
        purged = scene.purge()

    assert [(item.path, item.expected) for item in purged.left] == [("case/out.h5", False)]
    assert (purged.complete, purged.journal_stays) == (False, False)


@pytest.mark.parametrize("means", [mounted] if can_mount() else [])
def test_a_mount_in_the_run_directory(make: Make, means: Means) -> None:
    """It is not crossed, and that is no failure."""
    scene = make()
    (scene.run / "data").mkdir()
    with means(scene.run / "data"):
        write(scene.run / "data/precious")
        purged = scene.purge()
        stays = (scene.run / "data/precious").exists()

    assert (stays, purged.complete) == (True, True)
    assert reasons(purged) == {"data": ("something is mounted there", True)}


def test_the_program_unpacked_in_the_run_directory(make: Make) -> None:
    """It is needed to the end, and goes after the certificate."""
    scene = make()
    scene.place = replace(scene.place, unpacked=write(scene.run / ".unpacked/x").parent)

    purged = scene.purge()

    assert (scene.tree(), purged.left) == ([".byos/journal.jsonl", ".unpacked/x"], ())
    last(job=scene.job, place=scene.place, purged=purged)
    assert scene.tree() == []


def test_a_run_directory_that_is_gone(make: Make) -> None:
    """Nothing raises."""
    scene = make()
    scene.run.rename(scene.run.parent / "moved")

    assert scene.purge().complete
    assert last(job=scene.job, place=scene.place, purged=scene.purge()) == []


def test_the_certificate(make: Make) -> None:
    """It counts what went, lists what stays with its reason, failures first, and names what goes after it."""
    scene = make(extra=["process_output.log"])
    bad = os.fsdecode(b"case/\xff")
    write(scene.run / bad)
    purged = scene.purge()
    document = certificate(
        purged=purged,
        job=scene.job,
        place=scene.place,
        attempt=Attempt("1" * 32, 1, 0.0),
        exit_code=74,
        whose="byos-run's",
    )

    assert json.loads(json.dumps(document)) == document
    assert document["left"]["paths"][0] == {
        "path": "case/%FF", "name_escaped": True, "reason": "the bucket has not acknowledged it as it is now", "expected": False,
    }  # fmt: skip
    assert (document["left"]["entries"], document["left"]["unexpected"]) == (5, 1)
    assert (document["deleted"]["files"], document["complete"]) == (purged.files, False)
    assert (document["exit_code"], document["exit_code_is"]) == (74, "byos-run's")
    assert "case/out.h5" in document["deleted"]["paths"]
    assert document["after_this"] == [str(scene.run.parent / "unpacked")]


def test_names_in_the_certificate_are_unambiguous(make: Make) -> None:
    """A line feed, a backslash, a percent sign and bytes that are not UTF-8: each name is told from every other."""
    names = ["a\nb", r"a\x0ab", "a%FF", os.fsdecode(b"a\xff"), r"a\xff"]
    purged = Purged(5, 0, 0, (Left(names[3], "kept", True), Left(names[2], "kept", True)), paths=tuple(names))
    scene = make()
    document = certificate(
        purged=purged,
        job=scene.job,
        place=scene.place,
        attempt=Attempt("1" * 32, 2, 0.0),
        exit_code=0,
        whose="byos-run's",
    )

    told = json.loads(json.dumps(document))
    assert told["attempt"] == 2
    assert told["deleted"]["paths"] == ["a\nb", r"a\x0ab", "a%FF", "a%FF", r"a\xff"]
    assert told["deleted"]["names_escaped"] == [3]
    assert [item.get("name_escaped") for item in told["left"]["paths"]] == [True, None]


def test_the_certificate_of_a_clean_purge(make: Make) -> None:
    """What goes after it: the journal and the unpacked program."""
    scene = make()
    document = certificate(
        purged=scene.purge(),
        job=scene.job,
        place=scene.place,
        attempt=Attempt("1" * 32, 1, 0.0),
        exit_code=0,
        whose="solver's",
    )

    assert document["complete"]
    assert document["after_this"] == [".byos", str(scene.run.parent / "unpacked")]


def test_the_certificate_is_bounded(make: Make) -> None:
    """However much stays, the lists do not."""
    scene = make()
    purged = Purged(5000, 1, 1, tuple(reasons_of(3000)), lost=tuple(f"lost{n}" for n in range(2000)))
    document = certificate(
        purged=purged,
        job=scene.job,
        place=scene.place,
        attempt=Attempt("1" * 32, 1, 0.0),
        exit_code=74,
        whose="byos-run's",
    )

    assert (document["left"]["entries"], len(document["left"]["paths"])) == (3000, 1000)
    assert (document["lost"]["files"], len(document["lost"]["paths"])) == (2000, 1000)


def reasons_of(count: int) -> list[Left]:
    return [Left(f"left{number}", "because", expected=False) for number in range(count)]
