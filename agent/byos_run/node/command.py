"""The solver's command before it runs: found on this node, its environment made, what is known to go wrong said.

Not promised: that what the command itself starts (the program after ``mpirun -np 8``) exists; that is the launcher's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from byos_run.errors import NodeUnfit
from byos_run.node import cores, mpi

_SECRET = re.compile(
    r"AWS_(?!(?:REGION|DEFAULT_REGION|DEFAULT_OUTPUT|EXECUTION_ENV|CA_BUNDLE|BATCH_\w+)$)\w+"
    r"|RESCALE_\w*(?:KEY|TOKEN|SECRET|PASSWORD)\w*"
    r"|BYOS_\w*"
    r"|BOTO_CONFIG"
)
"""What no solver needs and may hold, or lead to, a key: all of AWS's names but the harmless ones, the platform's, ours."""

_BINDING = re.compile(
    r"(?:OMPI|PRTE)_MCA_(?:hwloc_\w*binding_policy|rmaps_default_mapping_policy|rmaps_base_mapping_policy)"
)
_MPI_LAUNCHERS = ("mpirun", "mpiexec", "orterun", "prterun", "mpirun.openmpi", "mpiexec.openmpi")


def environment(
    started_with: Mapping[str, str], *, added: Mapping[str, str], given_back: Sequence[str]
) -> dict[str, str]:
    """What the solver gets: all we were started with but the secrets, then *given_back*, then *added*."""
    kept = {name: value for name, value in started_with.items() if not _SECRET.fullmatch(name)}
    kept.update({name: started_with[name] for name in given_back if name in started_with})
    return {**kept, **added}


def find(name: str, *, search_path: str, directory: Path) -> str:
    """The file that *name* means; a relative one, and a relative entry of *search_path*, is below *directory*.

    Raises NodeUnfit: there is none, or it may not be executed.
    """
    if "/" in name:
        candidates = [os.path.join(directory, name)]
    else:
        candidates = [os.path.join(directory, entry or ".", name) for entry in search_path.split(":")]
    refused = ""
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        if os.path.isfile(path) and not refused:
            refused = path
    if refused:
        raise NodeUnfit(f'command "{name}" cannot be executed: "{refused}" has no execute permission', hint=_EXEC_HINT)
    if "/" in name:
        what = "is a directory" if os.path.isdir(candidates[0]) else "does not exist"
        raise NodeUnfit(f'no such command: "{candidates[0]}" {what}')
    raise NodeUnfit(f'no such command: "{name}" is not on PATH ({search_path or "which is empty"})', hint=_PATH_HINT)


_EXEC_HINT = 'chmod +x it, or name its interpreter: ["bash", "./run.sh"]'
_PATH_HINT = "load the module that brings it before byos-run starts, or give the absolute path"


def refuse_several_nodes(environ: Mapping[str, str]) -> None:
    """Raises NodeUnfit if the slot spans more than one node."""
    count, source = cores.nodes(environ)
    if count > 1:
        raise NodeUnfit(
            f"the slot spans {count} nodes ({source}); this version runs on one", hint="ask for one node per slot"
        )


def warnings(command: Sequence[str], *, path: str, environ: Mapping[str, str], slot: cores.Cores) -> tuple[str, ...]:
    """One line for each thing that is known to go wrong with *command*; *path* is its file, "" if not yet known."""
    found = []
    usable = cores.usable()
    if slot.count > usable.count:
        found.append(
            f"{slot.source} gives {slot.count} cores, but this process may use {usable.count} ({usable.source})"
        )
    ranks = mpi.asked_ranks(command)
    if ranks > min(slot.count, usable.count):
        found.append(f"{ranks} ranks share {min(slot.count, usable.count)} cores: ranks wait actively, so this is slow")
    if _may_bind(command, environ=environ) and path and cores.shares_node(environ):
        name, version = mpi.flavour(path, environ=environ)
        if name == "Open MPI":
            found.append(
                f"Open MPI {version} without --bind-to none binds every slot of this node to the same cores; add it"
            )
    return tuple(found)


def _may_bind(command: Sequence[str], *, environ: Mapping[str, str]) -> bool:
    if os.path.basename(command[0]) not in _MPI_LAUNCHERS:
        return False
    said = any(word.startswith(("--bind-to", "-bind-to", "--cpu-set", "--rankfile", "-rf")) for word in command)
    return not said and not any(_BINDING.fullmatch(name) for name in environ)
