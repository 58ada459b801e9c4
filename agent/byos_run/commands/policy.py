"""``byos-run policy``: the least-privilege IAM policy for a run, or for a whole table of them. Asks nobody, prints JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from byos_run import errors
from byos_run.errors import printable
from byos_run.model import Job, Place, S3Url
from byos_run.steps import table
from byos_run.steps.policy import permissions, trust
from byos_run.steps.settle import settle
from byos_run.steps.sources import read_table
from byos_run.steps.words import sort_words

USAGE = """\
usage: byos-run policy [--input URL --output URL | --table inputs.csv]
                       [--no-list] [--trust PRINCIPAL] [--KEY VALUE ...]

Prints the IAM policy that the user, or the role, of the runs needs and no more:
for what byos.toml, flags and BYOS_* variables ask, or for all rows of a table.

  --no-list          without s3:ListBucket: what is missing is then told as 403
  --trust PRINCIPAL  print the trust policy of the role instead: who may assume
                     it (an account's or a user's ARN), with store.external_id
"""
CODES = """
exit codes:
  0   the policy is on standard output
  64  command line, job file or table wrong (all problems listed)
"""
_ANY = "s3://any/"


def policy(words: Sequence[str], *, place: Place, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Raises UsageError."""
    given = sort_words(words, command="policy", switches=("--no-list",), values=("--trust", "--table"))
    if given.places:
        raise errors.UsageError(
            [f'"{printable(given.places[0])}": policy takes flags alone'], hint="byos-run policy --help"
        )
    job, inputs, outputs = _asked(given.keys, given.values.get("--table", ""), place)
    if (principal := given.values.get("--trust")) is not None:
        document = trust(principal, external_id=job.store.external_id)
    else:
        document = permissions(
            inputs=inputs, outputs=outputs, settings=job.store, listing="--no-list" not in given.switches
        )
    show(json.dumps(document, indent=2) + "\n")
    return 0


def _asked(keys: Sequence[str], name: str, place: Place) -> tuple[Job, list[S3Url], list[S3Url]]:
    """The job with its inputs and outputs: those of all rows where a table is named, which no job file has to name then."""
    if not name:
        job = settle(arguments=[*keys, "--command", "true"], place=place)
        return job, list(job.input), [job.output]
    rows = table.parse(read_table(place.run_directory / name), name=name).rows
    no_job_file = replace(place, run_directory=place.run_directory / ".byos-no-such-directory")
    anything = ["--command", "true", "--input", _ANY, "--output", "s3://any-other/"]
    job = settle(arguments=[*keys, *anything], place=no_job_file)
    return job, [url for row in rows for url in row.inputs], [row.output for row in rows]
