"""What to do about an exit code, in one sentence: shown on the pages, and the troubleshooting table of README."""

from __future__ import annotations

from byos_run.errors import EXIT_CODES

HINTS: dict[int, str] = {
    64: "correct every line that is listed; nothing has moved",
    65: "pack the case again (zip, tar.gz, tar.zst) and put it into the bucket; the line above names member and rule",
    66: "compare the key with the bucket, letter by letter; a prefix ends in /",
    69: "is the endpoint right, and does the node reach it? start again, nothing was solved",
    70: "the traceback is in run.log; what is in the run directory stays",
    71: "another node or core type: the line above says whether disk, command or Python is missing",
    73: "give each run an output prefix of its own, or wait for the other one",
    74: "start again in the same directory: what is left is published, nothing is solved again",
    75: "start again; resume.files brings the newest restart files back",
    76: "delete by hand what purge.json lists as left",
    77: "grant the action that is named to these keys, or lay new keys down: config was deleted when it was read",
}
SOLVER_HINTS: dict[int, str] = {
    126: "the command is there and may not be executed",
    127: "the solver's own shell found no such command: is the module loaded?",
    134: "the solver aborted itself: its last lines say why",
    137: "killed: usually by the kernel, for want of memory; take a larger node or fewer ranks",
    139: "segmentation fault: a defect, or a limit (ulimit -s)",
}
_ANY_SOLVER = "the solver's own code: what it said last is at the end of _byos/solver.log"


def hint_of(code: int | None, *, whose: str) -> str:
    """What to do about *code*; "" where there is nothing to say."""
    if code is None or code == 0:
        return ""
    if code in EXIT_CODES and whose != "the solver's":
        return HINTS.get(code, "")
    return SOLVER_HINTS.get(code, _ANY_SOLVER)
