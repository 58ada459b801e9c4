"""In which order outputs leave, and which of them a solver reads back.

``publish.priority``, first to last; within it, and without it: the newest restart files, then small before large.

What a restart file is called is known for common solvers only; ``resume.files`` and ``publish.priority`` say it for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from byos_run.model import Output
from byos_run.node.globs import Globs

RESTARTS = (
    "*restart*", "*RESTART*", "*Restart*", "*.rst", "*.rst.*", "*.rsf", "*checkpoint*", "*Checkpoint*", "*.chk", "*.chkpt",
    "*.ckpt", "*.cpt", "*.res", "*.stt", "**/checkpoint*/**", "**/restart*/**", "d3dump*", "runrsf*", "WAVECAR", "CHGCAR",
)  # fmt: skip
"""CONVERGE, LAMMPS, SU2, code_saturne, GROMACS, CP2K, Abaqus, LS-DYNA, VASP, and what most others call theirs."""
_GENERATION_NS = 60 * 10**9
"""The ranks of a solver do not write their restart files at one moment."""


def in_order(outputs: Iterable[Output], *, priority: Sequence[str] = (), restarts: Sequence[str] = ()) -> list[Output]:
    """*outputs*, the most worth first. *restarts*: globs of restart files besides those that are known."""
    asked, known = Globs.of(priority), Globs.of((*restarts, *RESTARTS))
    listed = list(outputs)
    written = {output.path: output.identity.mtime_ns for output in listed if known.matches(output.path)}
    newest_ns = max(written.values(), default=0)

    def worth(output: Output) -> tuple[int, int, int, int]:
        written_ns = written.get(output.path, 0)
        is_newest = written_ns > newest_ns - _GENERATION_NS
        return (
            asked.rank(output.path),
            0 if is_newest else 1,
            -written_ns if is_newest else 0,
            output.identity.size_bytes,
        )

    return sorted(listed, key=worth)
