"""The one table of keys: what may be asked of a run, in the job file, by flag and by variable.

A row names the key, its kind, its default as the job file would write it, one line of help, and where the value lives in
the model.

Defaults live in the model; the ones here are for help, and a test holds them together.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from byos_run.steps.kinds import (
    BANDWIDTH,
    COMMAND,
    DURATION,
    ENDPOINT,
    EXPRESSION,
    FIGURE,
    GLOB,
    PATH_INSIDE,
    PLOT,
    S3PREFIX,
    S3URL,
    SWITCH,
    TABLE,
    TEXT,
    VARIABLE,
    Kind,
    integer,
    listed,
    number,
    one_of,
    or_auto,
    size,
    text_like,
)


@dataclass(frozen=True)
class Key:
    name: str
    """With its section: ``solver.time_limit``, ``solver.success.exit``, ``input``."""
    kind: Kind
    default: str
    """As a job file would write it."""
    help: str
    field: str = ""
    """Its name in the model, where that says the unit."""

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        return "BYOS_" + self.name.replace(".", "_").upper()


MIB = 1 << 20
_BYTES = size(1, 1 << 62, 'a size like "50GB" or "16MiB", or a number of bytes')
_PART = size(5 * MIB, 5 << 30, "a size from 5MiB to 5GiB")
_GLOBS = listed(GLOB)
_ROLE = text_like(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+|arn:(?!aws)[^\s\x00-\x1f]{16,2000}",
    "arn:aws:iam::ACCOUNT:role/NAME",
    word="ARN",
)
_ACCOUNT = text_like(r"[0-9]{12}", "an account of 12 digits", word="ID")

KEYS = (
    Key("input", listed(S3URL, lone_item=True), "", 'object, prefix ending in "/", or several'),
    Key("output", S3PREFIX, "", "prefix that all results go below"),
    Key("command", COMMAND, "", 'starts the solver, "{cores}" is filled in; or everything after "--"'),
    Key("scratch", TEXT, '"case"', 'where the case lies: below the run directory, an absolute path, or "outside"'),
    Key("deadline", DURATION, '""', "from our start until all is over, publishing included", "deadline_s"),
    Key("again", SWITCH, "false", "run although an equal, complete attempt is in the bucket"),
    Key("fetch.local", _GLOBS, "[]", "globs of files of the run directory that are copied over the case"),
    Key("fetch.max_bytes", _BYTES, '""', "what an archive may unpack to"),
    Key("fetch.max_members", integer(1, 10**9), "0", "how many members an archive may have"),
    Key("fetch.max_ratio", number(0), "0", "unpacked bytes per packed byte of an archive"),
    Key("template.files", _GLOBS, "[]", "globs of case files in which ${name} is replaced"),
    Key("template.values", TABLE, "{}", "what the names are replaced by"),
    Key("solver.cores", or_auto(integer(1, 1 << 20), 0), '"auto"', "fills in {cores}; auto: what the slot has"),
    Key("solver.directory", PATH_INSIDE, '"auto"', "where in the case the command runs; auto: where inputs.in is"),
    Key("solver.time_limit", DURATION, '""', "from the solver's start to the request to stop", "time_limit_s"),
    Key("solver.grace", or_auto(DURATION, None), '"auto"', "between asking the ranks to stop and killing", "grace_s"),
    Key("solver.stop_file", PATH_INSIDE, '""', "created first when stopping, waited for within grace"),
    Key("solver.stall", DURATION, '""', "without output and file change", "stall_s"),
    Key("solver.stall_action", one_of("report", "stop"), '"report"', "what a stall leads to"),
    Key("solver.echo", one_of("all", "tail", "none"), '"all"', "of the solver's output to standard output"),
    Key("solver.env", TABLE, "{}", "added to the solver's environment; never recorded"),
    Key("solver.pass_env", listed(VARIABLE), "[]", "names of removed variables to give back"),
    Key("solver.success.exit", listed(integer(0, 255)), "[0]", "exit codes that are a success"),
    Key("solver.success.log_pattern", EXPRESSION, '""', "must be found in solver.log"),
    Key("solver.success.file", PATH_INSIDE, '""', "must exist in the case at the end"),
    Key("publish.what", one_of("changed", "all"), '"changed"', "what the solver changed, or the inputs too"),
    Key("publish.include", _GLOBS, '["**"]', "globs of what is published"),
    Key("publish.exclude", _GLOBS, "[]", "globs of what is not, though included"),
    Key("publish.overwrite", SWITCH, "false", "the output prefix may hold objects that are not ours"),
    Key("publish.while_running", SWITCH, "true", "publish while the solver runs"),
    Key("publish.settle", DURATION, '"10s"', "how long a file must not change", "settle_s"),
    Key("publish.live", _GLOBS, "[]", "growing files that are shown every minute"),
    Key("publish.priority", _GLOBS, "[]", "globs, first to last to be published"),
    Key("publish.cores_while_running", number(0), "1.0", "what publishing may take from the solver"),
    Key("publish.delete_behind", SWITCH, "false", "free the disk as outputs are acknowledged"),
    Key("publish.compress", _GLOBS, "[]", "globs of files stored as zstd"),
    Key("publish.bundle", _GLOBS, "[]", "globs of small files that travel together"),
    Key(
        "purge.when",
        one_of("acknowledged", "always", "never"),
        '"acknowledged"',
        "always: delete even what could not be published",
    ),
    Key("purge.keep", _GLOBS, "[]", "globs of what stays in the run directory"),
    Key("resume.files", _GLOBS, "[]", "the newest of each is brought from an interrupted attempt"),
    Key("resume.command", COMMAND, '""', "if the restarted solver is called otherwise"),
    Key("report.plot", listed(PLOT), "[]", "columns of the solver's tables to draw: thermo.out:1:2,3"),
    Key("report.result", listed(FIGURE), "[]", "figures of a run: the last value of a table's column, or in the log"),
    Key("report.price_core_hour", number(0), "0.0", "of a core for an hour"),
    Key("report.price_gb", number(0), "0.0", "of a stored gigabyte"),
    Key("report.openmetrics", TEXT, '""', "file that samples are written to, for a node exporter"),
    Key("spot.watch", one_of("auto", "aws", "azure", "gcp", "off"), '"auto"', "pre-emption notices: of which cloud"),
    Key("store.endpoint_url", ENDPOINT, '""', "any S3-compatible store"),
    Key("store.region", text_like(r"[A-Za-z0-9._-]{1,64}", "a region's name"), '""', "region of the bucket"),
    Key("store.profile", TEXT, '""', "section of the AWS config files"),
    Key("store.role_arn", _ROLE, '""', "assume this role (cross-account access)"),
    Key(
        "store.external_id",
        text_like(r"[\w+=,.@:/-]{2,1224}", "2 to 1224 letters, digits and +=,.@:/-"),
        '""',
        "that the role's trust policy asks for",
    ),
    Key(
        "store.session_name",
        text_like(r"[\w+=,.@-]{2,64}", "2 to 64 letters, digits and +=,.@-"),
        '""',
        "under which the role is assumed",
    ),
    Key("store.instance_role", SWITCH, "false", "may the node's own role be used?"),
    Key("store.addressing", one_of("auto", "path", "virtual"), '"auto"', "bucket in the path or in the host's name"),
    Key("store.sign_payload", one_of("auto", "always"), '"auto"', "auto: not, TLS protects it (on http: said)"),
    Key("store.sse", one_of("AES256", "aws:kms"), '""', "server-side encryption"),
    Key("store.kms_key_id", TEXT, '""', "key for aws:kms"),
    Key("store.expected_bucket_owner", _ACCOUNT, '""', "account that the bucket belongs to"),
    Key("store.request_payer", SWITCH, "false", "requests and transfer are billed to us"),
    Key("store.part_size", or_auto(_PART, 0), '"auto"', "of multipart uploads", "part_bytes"),
    Key("store.connections", or_auto(integer(1, 256), 0), '"auto"', "requests in flight"),
    Key("store.max_bandwidth", BANDWIDTH, '""', "neighbours share the link", "max_bandwidth_bytes_per_s"),
    Key("store.first_contact", DURATION, '"60s"', "store never reached: exit 69", "first_contact_s"),
    Key("store.patience", DURATION, '"15m"', "with later outages", "patience_s"),
    Key("store.lease", DURATION, '"3m"', "age at which a heartbeat counts as dead", "lease_s"),
    Key("store.ca_bundle", TEXT, '""', "file of certificates to trust"),
)

OWN_FLAGS = {
    "--table": (
        "FILE",
        "a csv, or s3://BUCKET/KEY: each row is a run, with s3_input, s3_output and columns for template.values",
    ),
    "--row": (
        "N",
        "the row, from 1, in byos-row-N/; else by the array index of Slurm, AWS Batch, Kubernetes, PBS, SGE, LSF",
    ),
}
"""Flags that belong to no key: flag → word of its value, help. No variable, no place in the job file."""

SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS if key.section))


def nearest(name: str, names: Iterable[str]) -> str:
    """`, nearest known: "…"`, or nothing if no name is near. One that only lacks its section, or has a wrong one, wins."""
    known = {_spoken(other): other for other in names}
    tails = (_spoken(name), _spoken(name.rpartition(".")[2]))
    whole = [spoken for tail in tails for spoken in known if f" {spoken}".endswith(f" {tail}")]
    near = sorted(whole, key=len) or [match for tail in tails for match in difflib.get_close_matches(tail, known)]
    return f', nearest known: "{known[near[0]]}"' if near else ""


def _spoken(name: str) -> str:
    """``--solver-cores``, ``BYOS_SOLVER_CORES`` and ``solver.cores`` sound alike."""
    return " ".join(re.findall(r"[^-_.]+", name.lower().replace("byos_", "", 1)))


def help_of_keys() -> str:
    """All keys by section, as flags with their defaults, 80 columns wide."""
    lines = []
    for section in ("", *SECTIONS):
        rows = [key for key in KEYS if key.section == section]
        if rows:
            lines += ["", f"[{section}]" if section else "top of the job file"]
        for key in rows:
            lines += _help_of(key)
    lines += ["", "one row of a table"]
    for flag, (word, text) in OWN_FLAGS.items():
        lines += _columns(f"  {flag} {word}", text)
    return "\n".join(lines[1:]) + "\n"


def _help_of(key: Key) -> list[str]:
    what = f"  --[no-]{key.flag[2:]}" if key.kind.shape == "switch" else f"  {key.flag} {key.kind.word}"
    given = "" if key.default in {"", '""', "[]", "{}", "0", "0.0"} else f" (default: {key.default})"
    if key.kind.shape in {"list", "table"}:
        given += " (repeatable)"
    return _columns(what, key.help + given)


def _columns(what: str, help_text: str) -> list[str]:
    text = textwrap.wrap(help_text, width=48, break_on_hyphens=False)
    first = [f"{what:<31} {text[0]}"] if len(what) <= 30 else [what, " " * 32 + text[0]]
    return first + [" " * 32 + line for line in text[1:]]
