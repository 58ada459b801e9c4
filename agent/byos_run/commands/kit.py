"""What the platform lays into the directory of one run of a DOE, laid there the same way on this machine.

    every NAME.template of the kit's directory, its ${column} filled from the row ▶ NAME
    config, byos-run as they are; variables as the platform sets them, and none of our own

``byos.toml`` is taken as it is where there is no template of it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byos_run.errors import NodeUnfit, UsageError
from byos_run.model import Job, Place
from byos_run.node.process import Program
from byos_run.steps.settle import settle
from byos_run.steps.sources import JOB_FILE
from byos_run.steps.table import Row, fill

LOG = "process_output.log"
_TEMPLATE = ".template"
_MOST_BYTES = 16 << 20
_OF_A_ROW = ("BYOS_INPUT", "BYOS_OUTPUT", "s3_input", "s3_output")
_OF_A_PLATFORM = ("RESCALE_", "SLURM_", "PBS_", "SGE_", "LSB_", "AWS_BATCH_", "JOB_COMPLETION_INDEX")


@dataclass(frozen=True)
class Slot:
    """What the platform gives to one run."""

    slots: int
    cores: int


@dataclass(frozen=True)
class Kit:
    """What the user would upload, and how the runs are started."""

    place: Place
    files: Mapping[str, bytes] = field(repr=False)
    """Name → content with ``${column}`` in it, or none."""
    config: str = field(repr=False)
    """Its text; "" if the runs use what credentials this machine has."""
    arguments: tuple[str, ...]
    """Flags for each run."""
    slot: Slot
    endpoint_url: str = ""
    """Of a private store, in the place of the job file's."""

    def lay_down(self, row: Row, directory: Path) -> None:
        """Everything that a run finds when it starts. Raises NodeUnfit."""
        try:
            directory.mkdir(parents=True)
            for name in self.files:
                self._fill(name, row, directory)
            if self.config:
                (directory / "config").write_text(self.config, "utf-8", "surrogateescape")
                (directory / "config").chmod(0o600)
            if self.place.shipped_file is not None:
                shutil.copyfile(self.place.shipped_file, directory / "byos-run")
        except OSError as error:
            raise NodeUnfit(f"cannot lay down {str(directory)!r}: {error.strerror}") from error

    def job(self, row: Row, directory: Path) -> Job:
        """What the run of *row* will be asked for; its job file is laid into *directory*. Raises UsageError."""
        self._fill(JOB_FILE, row, directory)
        return settle(arguments=self.arguments, place=Place(run_directory=directory, environ=self.environ()))

    def _fill(self, name: str, row: Row, directory: Path) -> None:
        text = self.files[name].decode("utf-8", "surrogateescape")
        (directory / name).write_bytes(fill(text, row.cells).encode("utf-8", "surrogateescape"))

    def program(self, directory: Path) -> Program:
        """The command of the platform's job. Raises NodeUnfit."""
        environ = self.environ()
        if self.place.shipped_file is None:
            return Program(sys.executable, (sys.executable, "-m", "byos_run", *self.arguments), environ, directory)
        shell = shutil.which("sh", path=environ.get("PATH"))
        if shell is None:
            raise NodeUnfit('there is no "sh" on PATH')
        return Program(shell, ("sh", "byos-run", *self.arguments), environ, directory)

    def environ(self) -> dict[str, str]:
        own = (*_OF_A_PLATFORM, *(("AWS_",) if self.config else ()))
        kept = {n: value for n, value in self.place.environ.items() if not n.startswith(own) and n not in _OF_A_ROW}
        slots, cores = self.slot.slots, self.slot.cores
        private = {"BYOS_STORE_ENDPOINT_URL": self.endpoint_url} if self.endpoint_url else {}
        return {
            **kept, **private, "RESCALE_JOB_ID": "rehearsal", "RESCALE_CLUSTER_ID": "rehearsal",
            "RESCALE_NODES_PER_SLOT": "1", "RESCALE_CORES_PER_SLOT": str(cores), "RESCALE_SLOTS_PER_NODE": str(slots),
            "RESCALE_CORES_PER_NODE": str(slots * cores),
        }  # fmt: skip

    @property
    def not_on_the_platform(self) -> list[str]:
        """What the runs use here and will not find there, one line each."""
        names = sorted(name for name in self.environ() if name.startswith("BYOS_"))
        found = [f"{', '.join(names)}: set here, not on the platform: write it into the job file"] if names else []
        own = "no config here: the runs use the credentials of this machine, which the platform will not have"
        return found if self.config else [*found, own]


def kit_in(place: Place, *, arguments: Sequence[str], slot: Slot) -> Kit:
    """The kit in the working directory. Raises UsageError."""
    here = place.run_directory
    paths = {path.name[: -len(_TEMPLATE)]: path for path in sorted(here.glob(f"*{_TEMPLATE}")) if path.is_file()}
    if JOB_FILE not in paths and (here / JOB_FILE).is_file():
        paths[JOB_FILE] = here / JOB_FILE
    if JOB_FILE not in paths:
        raise UsageError(
            [f"neither {JOB_FILE}{_TEMPLATE} nor {JOB_FILE} is here"], hint="start it in the directory of the kit"
        )
    large = [path.name for path in paths.values() if path.stat().st_size > _MOST_BYTES]
    if large:
        raise UsageError([f"{large[0]}: it is larger than {_MOST_BYTES} bytes"])
    config = here / "config"
    return Kit(
        place=place,
        files={name: path.read_bytes() for name, path in paths.items()},
        config=config.read_text("utf-8", "surrogateescape") if config.is_file() else "",
        arguments=tuple(arguments),
        slot=slot,
    )
