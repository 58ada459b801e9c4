"""``byos-run verify s3://…/``: the manifests below a prefix against the bucket, from any machine.

    survey ▶ manifests ─ verify_run ▶ what differs ▶ a line for each finding, one for all that is whole

Reads only. With ``--fetch`` each proven output becomes a file of DIRECTORY (below the run's own prefix where there are several
runs). Standard output carries the result alone; progress goes to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

from byos_run import errors, log
from byos_run.archive.plan import safe_path
from byos_run.bucket import objects, ranges
from byos_run.bucket.wire import Wire
from byos_run.commands.desk import desk, no_run
from byos_run.errors import printable
from byos_run.model import Place, S3Url
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop
from byos_run.steps import bring, survey, verify
from byos_run.steps.documents import parsed
from byos_run.steps.entries import Entry
from byos_run.steps.settle import settle_store
from byos_run.steps.verify import Asked, Problem, Prove, Verified
from byos_run.steps.words import sort_words

_RUNS_AT_ONCE = 8
_LOOKS_AT_ONCE = 16
_NAMED = 20
_BUNDLES_OPEN = 32
"""Each keeps the last MiB of its object."""
_PATIENCE_S = 30.0
"""Somebody waits; and an object that a store cannot read any more would be tried for all of ``store.patience``."""
NOT_WHOLE = 74

USAGE = """\
usage: byos-run verify s3://BUCKET/PREFIX/ [--read] [--fetch DIRECTORY]
                       [--allow-extra] [--json] [--store-KEY VALUE ...]

Compares the manifest of the run at PREFIX, or of every run below it, with the
bucket: outputs that are missing, of another size or with another checksum,
objects that no manifest lists, and what the run itself could not publish.

  --read             read every byte and compute its CRC-32; without it the
                     checksum that the store keeps is asked for
  --fetch DIRECTORY  bring the outputs, each proved; started again it goes on
                     where it was
  --overwrite        with --fetch: replace files of DIRECTORY that differ
  --allow-extra      objects that no manifest lists are no finding
  --json             one document on standard output
"""
CODES = """
exit codes:
  0   every run is whole
  64  command line wrong
  66  there is no run, or no such bucket
  69  store not reachable
  71  with --fetch: this machine cannot hold the files
  74  something is not whole in the bucket; it is listed
  75  stopped by a signal
  77  store refused the credentials or the permission
"""


@dataclass(frozen=True)
class _Asked:
    top: S3Url
    read: bool
    fetch: Path | None
    overwrite: bool
    extra: bool
    as_json: bool


def verify_runs(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked, keys = _asked(words, place)
    store = settle_store(arguments=keys, place=place, command="verify")
    with desk(store, place=place, stop=stop) as here, here.book.phase("verify") as count:
        wire = here.wire(asked.top.bucket).until(patience_s=min(store.patience_s, _PATIENCE_S))
        found = _Verifying(wire, asked, count).all()
    if not found:
        raise no_run(asked.top)
    found.sort(key=lambda run: run.prefix)
    show(json.dumps(_document(found, asked), indent=1) + "\n" if asked.as_json else _text(found, asked, place.volume))
    return 0 if all(run.is_whole for run in found) else NOT_WHOLE


def _asked(words: Sequence[str], place: Place) -> tuple[_Asked, list[str]]:
    given = sort_words(
        words, command="verify", switches=("--read", "--overwrite", "--allow-extra", "--json"), values=("--fetch",)
    )
    if len(given.places) != 1:
        raise errors.UsageError(["verify needs one s3://BUCKET/PREFIX/"], hint="byos-run verify --help")
    fetch = given.values.get("--fetch")
    if fetch is None and "--overwrite" in given.switches:
        raise errors.UsageError(["--overwrite: it needs --fetch DIRECTORY"])
    asked = _Asked(
        top=survey.place_of(given.places[0]), read="--read" in given.switches,
        fetch=place.run_directory / fetch if fetch else None, overwrite="--overwrite" in given.switches,
        extra="--allow-extra" not in given.switches, as_json="--json" in given.switches,
    )  # fmt: skip
    return asked, given.keys


class _Verifying:
    """All runs below a prefix: several runs at once, several objects of each."""

    def __init__(self, wire: Wire, asked: _Asked, count: Count) -> None:
        self._wire = wire
        self._asked = asked
        self._count = count

    def all(self) -> list[Verified]:
        with (
            Pool(name="read", width=_LOOKS_AT_ONCE) as self._readers,
            Pool(name="look", width=_LOOKS_AT_ONCE) as self._looks,
            Pool(name="run", width=_RUNS_AT_ONCE) as runs,
        ):
            return list(survey.runs_below(self._wire, self._asked.top, look=self._look, pool=runs))

    def _look(self, prefix: S3Url) -> Verified | None:
        self._wire.stop.check()
        manifest = objects.get(self._wire, f"{prefix.key}_byos/manifest.json")
        if manifest is None:
            status = objects.get(self._wire, f"{prefix.key}_byos/status.json")
            return verify.without_manifest(prefix, parsed(status.body)) if status else None
        return verify.verify_run(
            self._wire, prefix, parsed(manifest.body), pool=self._looks, tally=self._count,
            asked=Asked(self._prover, extra=self._asked.extra, each_file=self._asked.fetch is not None),
        )  # fmt: skip

    def _prover(self, prefix: S3Url) -> Prove:
        by_store = verify.stored(self._wire, tally=self._count)
        by_bytes = verify.reading(self._wire, readers=self._readers, tally=self._count)
        known = by_bytes if self._asked.read else by_store
        return known if self._asked.fetch is None else self._bringing(prefix, self._asked.fetch, known=known)

    def _bringing(self, prefix: S3Url, directory: Path, *, known: Prove) -> Prove:
        """Makes files; *known* proves the objects of those that are here already."""
        inside = prefix.key[len(self._asked.top.key) :]
        where = directory / safe_path(inside, of=self._asked.top) if inside else directory
        bringer = bring.Bringer(where, overwrite=self._asked.overwrite, tally=self._count)

        opened = lru_cache(maxsize=_BUNDLES_OPEN)(ranges.open_object)

        def proven(entry: Entry, take: Callable[[memoryview], None], start: int, begun: int) -> Problem | None:
            return verify.proven(
                self._wire, entry, readers=self._readers, tally=self._count, take=take, start=start,
                begun=begun, opened=opened,
            )  # fmt: skip

        def prove(entry: Entry) -> Problem | None:
            self._wire.stop.check()
            try:
                if bringer.has(entry):
                    return known(entry)
                problem = bringer.bring(entry, proven=proven)
            except bring.Differs as reason:
                problem = Problem("in the way", entry.path, str(reason))
            self._count.add(files=1)
            return problem

        return prove


def _text(found: Sequence[Verified], asked: _Asked, volume: int) -> str:
    """Quiet: findings alone; verbose: a line for each run that is whole, too."""
    lines: list[str] = []
    several = len(found) > 1
    for run in found:
        lines += [f"{run.prefix}: {note}" for note in run.notes]
        if not run.is_whole:
            lines += _findings(run)
        elif (not several and volume >= 0) or volume > 0:
            lines.append(_whole_line(run, asked))
    if several and volume >= 0:
        whole = [run for run in found if run.is_whole]
        failed = sum(run.status == "solver-failed" for run in whole)
        outputs, size = sum(run.outputs for run in whole), sum(run.size_bytes for run in whole)
        lines.append(
            f"{len(whole):,} of {log.count(len(found), 'run')} are whole: {log.count(outputs, 'output')}, {log.size(size)}, "
            f"{_how(asked)}" + (f"; the solver failed in {failed:,} of them" if failed else "")
        )
    return "".join(f"{printable(line)}\n" for line in lines)


def _findings(run: Verified) -> list[str]:
    lines = [
        f"{run.prefix}: not whole: {log.count(len(run.problems), 'finding')} in {log.count(run.outputs, 'output')}"
    ]
    for problem in run.problems[:_NAMED]:
        detail = f": {problem.detail}" if problem.detail else ""
        lines.append(f"  {problem.kind:<11} {problem.path}{detail}")
    if len(run.problems) > _NAMED:
        lines.append(f"  … and {len(run.problems) - _NAMED:,} more (--json lists all)")
    return lines


def _whole_line(run: Verified, asked: _Asked) -> str:
    solver = f"; the solver failed with {run.exit_code}" if run.status == "solver-failed" else ""
    return f"{run.prefix}: whole: {log.count(run.outputs, 'output')}, {log.size(run.size_bytes)}, {_how(asked)}{solver}"


def _how(asked: _Asked) -> str:
    if asked.fetch is not None:
        return f"fetched into {str(asked.fetch)!r}, each proved by its CRC-32"
    return "every byte read" if asked.read else "by the checksums that the store keeps"


def _document(found: Sequence[Verified], asked: _Asked) -> Mapping[str, Any]:
    runs = [
        {
            "prefix": str(run.prefix), "whole": run.is_whole, "status": run.status, "exit_code": run.exit_code,
            "outputs": run.outputs, "bytes": run.size_bytes,
            "problems": [asdict(problem) for problem in run.problems], "notes": list(run.notes),
        }
        for run in found
    ]  # fmt: skip
    how = "read" if asked.read or asked.fetch else "stored"
    return {"prefix": str(asked.top), "whole": all(run.is_whole for run in found), "checked_by": how, "runs": runs}
