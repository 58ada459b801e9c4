"""The edge: command line, environment, signals, standard output, exit code. One sub-command, one function.

What the shipped file set aside for itself (``BYOS_ASIDE_*``) goes back to where the solver expects it; what it says of itself
(``BYOS_FILE``, ``BYOS_UNPACKED``) becomes part of the Place. After this module nobody reads the process's environment.

``--version`` and ``--help`` are answered before anything that a run needs is imported: their time is that of the start alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from byos_run import __version__
from byos_run.errors import EXIT_CODES, ByosError, UsageError, line_of, printable

if TYPE_CHECKING:
    from byos_run.model import Place
    from byos_run.node.stop import Stop

_ASIDE = "BYOS_ASIDE_"
_VOLUMES = {"-q": -1, "--quiet": -1, "-v": 1, "--verbose": 1}
_STOPPING = ("TERM", "INT", "HUP", "USR1", "USR2", "XCPU")

USAGE = """\
byos-run: one solver run on a rented node, with storage of your own

usage: byos-run [run] [--KEY VALUE ...] [-- COMMAND ...]
       byos-run fetch s3://BUCKET/KEY DIRECTORY [--store-KEY VALUE ...]
       byos-run verify s3://BUCKET/PREFIX/ [--read] [--fetch DIRECTORY]
       byos-run status s3://BUCKET/PREFIX/ [--watch] [--wait] [--failed]
       byos-run report s3://BUCKET/PREFIX/ [-o FILE | --publish]
       byos-run check [--json] [--KEY VALUE ...]
       byos-run policy [--table inputs.csv] [--no-list] [--trust PRINCIPAL]
       byos-run init s3://BUCKET/INPUT/ s3://BUCKET/OUTPUT/ [-o DIRECTORY]
       byos-run rehearse inputs.csv [--slots N] [--cores N] [--store minio]
       byos-run COMMAND --help
       byos-run --version [--json]

  run       input from the bucket, the MPI command, proven outputs back into it,
            the run directory emptied; what is asked stands in byos.toml, in
            flags and in BYOS_* variables
  fetch     the stage-in alone: download and unpack while it streams
  verify    manifests against the bucket: is every output there, as it was
            acknowledged?
  status    how the runs below a prefix stand
  report    one HTML page of a DOE: who ended how, where and when, cost,
            results
  check     everything that the run of this directory relies on, tried for real
  policy    the IAM policy that these inputs and outputs need, and no more
  init      write the kit of a DOE: table, job file, policy, a submit file
  rehearse  a whole DOE on this machine as the platform would do it

Every command takes -q (warnings, errors and the result alone) and -v (details).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words, volume = _without_volume(list(sys.argv[1:] if arguments is None else arguments))
    if words[:1] == ["--version"]:
        return _version(os.environ.get("BYOS_UNPACKED", ""), as_json="--json" in words)
    if words[:1] in (["--help"], ["-h"], ["help"]):
        return _print(USAGE + _exit_codes())
    name = words[0] if words and not words[0].startswith("-") else ""
    if name and name not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        return _refuse(UsageError([f"unknown command {name!r}: there is {known}"], hint="byos-run --help"))
    command = _COMMANDS[name or "run"]
    try:
        return command(words[1:] if name else words, _place(volume))
    except KeyboardInterrupt:
        return 130
    except ByosError as error:
        return _refuse(error)


def _without_volume(words: list[str]) -> tuple[list[str], int]:
    """*words* without -q and -v, which every command has; what follows "--" is the solver's."""
    end = words.index("--") if "--" in words else len(words)
    said = [_VOLUMES[word] for word in words[:end] if word in _VOLUMES]
    return [word for word in words[:end] if word not in _VOLUMES] + words[end:], said[-1] if said else 0


def _place(volume: int) -> Place:
    from pathlib import Path

    from byos_run.model import Place

    environ = dict(os.environ)
    shipped, unpacked = environ.pop("BYOS_FILE", ""), environ.pop("BYOS_UNPACKED", "")
    for name in [name for name in environ if name.startswith(_ASIDE)]:
        environ[name[len(_ASIDE) :]] = environ.pop(name)
    for name in [name for name in environ if name.startswith("AWS_") and not environ[name]]:
        os.environ.pop(name)  # botocore takes it for a profile, or a file, of no name
    for name in ("BYOS_BOOT", "BYOS_FILE", "BYOS_UNPACKED"):
        environ.pop(name, None)
        os.environ.pop(name, None)
    return Place(
        run_directory=Path.cwd(),
        environ=environ,
        shipped_file=Path(shipped) if shipped else None,
        unpacked=Path(unpacked) if unpacked else None,
        library_path=os.environ.get("LD_LIBRARY_PATH", ""),
        volume=volume,
    )


def _run(words: Sequence[str], place: Place) -> int:
    if _asks_for_help(words[:1]):
        from byos_run.steps.settle import help_of_keys

        return _print(f"usage: byos-run [run] [--KEY VALUE ...] [-- COMMAND ...]\n\n{help_of_keys()}\n{_exit_codes()}")
    from byos_run.run import run

    return run(arguments=words, place=place, stop=_stop())


def _fetch(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import fetch

    if _asks_for_help(words[:1]):
        return _print(fetch.USAGE + fetch.CODES)
    return fetch.fetch(words, place=place, stop=_stop())


def _verify(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import verify

    if _asks_for_help(words):
        return _print(verify.USAGE + verify.CODES)
    return verify.verify_runs(words, place=place, stop=_stop(), show=_print)


def _check(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import check

    if _asks_for_help(words):
        return _print(check.USAGE + check.CODES)
    return check.check(words, place=place, stop=_stop(), show=_print)


def _policy(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import policy

    if _asks_for_help(words):
        return _print(policy.USAGE + policy.CODES)
    return policy.policy(words, place=place, show=_print)


def _init(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import init

    if _asks_for_help(words):
        return _print(init.USAGE + init.CODES)
    return init.init(words, place=place, stop=_stop(), show=_print)


def _status(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import status

    if _asks_for_help(words):
        return _print(status.USAGE + status.CODES)
    return status.status(words, place=place, stop=_stop(), show=_print)


def _report(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import report

    if _asks_for_help(words):
        return _print(report.USAGE + report.CODES)
    return report.report(words, place=place, stop=_stop(), show=_print)


def _rehearse(words: Sequence[str], place: Place) -> int:
    from byos_run.commands import rehearse

    if _asks_for_help(words[:1]):
        return _print(rehearse.USAGE + rehearse.CODES)
    return rehearse.rehearse(words, place=place, stop=_stop(), show=_print)


def _asks_for_help(words: Sequence[str]) -> bool:
    """What follows "--" is the solver's."""
    return bool({"--help", "-h"} & {*takewhile(lambda word: word != "--", words)})


def _stop() -> Stop:
    """Signals become a wish to stop."""
    import signal

    from byos_run.node.stop import Stop, hear_signals

    stop = Stop()
    hear_signals(stop, [getattr(signal, f"SIG{name}") for name in _STOPPING])
    return stop


def _version(unpacked: str, *, as_json: bool) -> int:
    if not as_json:
        return _print(f"byos-run {__version__}\n")
    import json
    from pathlib import Path

    index = Path(unpacked, "index.json")
    parts = json.loads(index.read_text()) if unpacked and index.is_file() else {}
    return _print(json.dumps({"byos-run": __version__, "python": sys.version.split()[0], **parts}, indent=1) + "\n")


def _exit_codes() -> str:
    import textwrap

    told = {str(code): meaning for code, meaning in EXIT_CODES.items()}
    told["else"] = "the solver's own code, as it is; 128 + signal if its launcher died of one"
    lines = [textwrap.fill(f"  {code:<5} {meaning}", 80, subsequent_indent=" " * 8) for code, meaning in told.items()]
    return "\n".join(["", "exit codes:", *lines, ""])


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # `byos-run --help | head`: Python would complain about it once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _refuse(error: ByosError) -> int:
    problems = error.problems if isinstance(error, UsageError) else [line_of(error)]
    for problem in problems:
        print(f"byos-run | error: {printable(problem)}", file=sys.stderr)
    if error.hint:
        print(f"byos-run | hint: {printable(error.hint)}", file=sys.stderr)
    return error.code


_COMMANDS = {
    "run": _run,
    "fetch": _fetch,
    "verify": _verify,
    "status": _status,
    "report": _report,
    "check": _check,
    "policy": _policy,
    "init": _init,
    "rehearse": _rehearse,
}
