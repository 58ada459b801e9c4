"""The files of a DOE's kit, as text: job file, config, the platform's steps, and what a scheduler is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from byos_run.steps.table import INPUT, OUTPUT

COMMAND = "mpirun -np {cores} converge super"
_HOURS = 12


@dataclass(frozen=True)
class Texts:
    """What all files of one kit have in common."""

    runs: int
    columns: tuple[str, ...]
    """Parameters."""
    command: str
    cores: int
    endpoint_url: str
    region: str
    output: str
    """Url that all outputs lie below."""
    program: str
    """How it is started from the kit's directory."""


def job_file(texts: Texts) -> str:
    """``byos.toml.template``: the platform, or ``--row``, fills each ``${column}``."""
    lines = [
        f'input   = "${{{INPUT}}}"', f'output  = "${{{OUTPUT}}}"', f"command = {_quoted(texts.command)}",
    ]  # fmt: skip
    if texts.columns:
        width = max(map(len, texts.columns))
        values = [f"{name:<{width}} = '${{{name}}}'" for name in texts.columns]
        lines += [
            "",
            "[template]",
            'files = ["inputs.in"]  # case files that hold a parameter in braces after a dollar sign',
        ]
        lines += ["", "[template.values]", *values]
    store = {"endpoint_url": texts.endpoint_url, "region": texts.region}
    if any(store.values()):
        lines += ["", "[store]", *(f"{name} = {_quoted(value)}" for name, value in store.items() if value)]
    return "\n".join([*lines, ""])


def config(keys: Mapping[str, str], *, region: str) -> str:
    """The credentials file; without *keys* a form to fill in."""
    note = (
        []
        if keys
        else ["# fill in the keys of the user that has policy.json, or take them from a profile: --keys-from-profile"]
    )
    names = (
        "aws_access_key_id",
        "aws_secret_access_key",
        *(["aws_session_token"] if keys.get("aws_session_token") else []),
    )
    lines = [*note, "[default]", *(f"{name} = {keys.get(name, '')}".rstrip() for name in names)]
    return "\n".join([*lines, *([f"region = {region}"] if region else []), ""])


def read_me(texts: Texts, *, submit: str) -> str:
    """What to do with the kit."""
    steps = [
        "Give policy.json to the user, or the role, whose keys stand in config.",
        f"Try it here:  {texts.program} check --table inputs.csv --row 1",
        f"       then:  {texts.program} rehearse inputs.csv --rows 1",
    ]
    if submit:
        steps.append(
            f"Read {submit}, put your queue and account in, and submit it from a directory that the nodes see."
        )
    else:
        steps += [
            "On the platform make a DOE of one analysis. Variables: inputs.csv.",
            "Template: byos.toml.template, processed as byos.toml.",
            "Input files: byos-run and config, as they are. Command:  sh byos-run",
            f"Cores of a slot: {texts.cores}. No output filter is needed: nothing but the log is left for the platform.",
        ]
    steps += [
        f"Watch it, in this directory:  {texts.program} status {texts.output} --watch --table inputs.csv",
        f"Afterwards:  {texts.program} verify {texts.output}",
        f"       and:  {texts.program} report {texts.output} --table inputs.csv",
    ]
    numbered, number = [], 0
    for step in steps:
        number += not step.startswith(" ")
        numbered.append(step if step.startswith(" ") else f"{number}. {step}")
    head = [
        f"A design of experiments of {texts.runs:,} run{'s' if texts.runs != 1 else ''}; made by byos-run init.",
        "",
    ]
    return "\n".join([*head, *numbered, ""])


def _slurm(texts: Texts) -> str:
    return f"""\
#!/bin/sh
#SBATCH --job-name=doe
#SBATCH --array=1-{texts.runs}
#SBATCH --nodes=1
#SBATCH --ntasks={texts.cores}
#SBATCH --time={_HOURS}:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
exec sh byos-run --table inputs.csv
"""


def _pbs(texts: Texts) -> str:
    return f"""\
#!/bin/sh
#PBS -N doe
#PBS -J 1-{texts.runs}
#PBS -l select=1:ncpus={texts.cores}:mpiprocs={texts.cores}
#PBS -l walltime={_HOURS}:00:00
cd "$PBS_O_WORKDIR" || exit 71
exec sh byos-run --table inputs.csv
"""


def _aws_batch(texts: Texts) -> str:
    array = {"arrayProperties": {"size": texts.runs}} if texts.runs > 1 else {}
    one = ["--row", "1"] if texts.runs == 1 else []
    return json.dumps(
        {
            "jobName": "doe", "jobQueue": "YOUR-QUEUE", "jobDefinition": "YOUR-DEFINITION-WITH-THE-KIT-IN-ITS-DIRECTORY", **array,
            "timeout": {"attemptDurationSeconds": _HOURS * 3600}, "retryStrategy": {"attempts": 3},
            "containerOverrides": {
                "command": ["sh", "byos-run", "--table", "inputs.csv", *one],
                "resourceRequirements": [{"type": "VCPU", "value": str(texts.cores)}],
            },
        },
        indent=1,
    ) + "\n"  # fmt: skip


def _kubernetes(texts: Texts) -> str:
    return f"""\
apiVersion: batch/v1
kind: Job
metadata:
  name: doe
spec:
  completionMode: Indexed
  completions: {texts.runs}
  parallelism: {min(texts.runs, 10)}
  backoffLimitPerIndex: 2
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 300
      containers:
        - name: run
          image: YOUR-IMAGE-WITH-THE-SOLVER-AND-THE-KIT
          workingDir: /doe
          command: ["sh", "byos-run", "--table", "inputs.csv"]
          resources:
            limits: {{cpu: "{texts.cores}", memory: 32Gi}}
"""


SUBMIT: dict[str, tuple[str, Callable[[Texts], str]]] = {
    "slurm": ("submit.sbatch", _slurm),
    "pbs": ("submit.pbs", _pbs),
    "aws-batch": ("submit.json", _aws_batch),
    "kubernetes": ("job.yaml", _kubernetes),
}
"""Scheduler → the name of its submit file, and what stands in it."""
FOR = ("rescale", *SUBMIT)


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)
