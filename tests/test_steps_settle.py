"""Settle, from outside: words, variables and a job file go in, a Job or every problem comes out."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byos_run import model
from byos_run.errors import UsageError
from byos_run.model import Job, Place, S3Url, StoreSettings
from byos_run.steps import keys, kinds
from byos_run.steps.settle import help_of_keys, settle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

JOB = 'input = "s3://data/in/case.zip"\noutput = "s3://data/out/"\ncommand = "mpirun -np {cores} solver"\n'

CONTRACT = r"""
input   = "s3://my-simulation-data/input/hsdi_fb_2mm.zip"
output  = "s3://my-simulation-data/output/hsdi/"
command = "mpirun -np {cores} solver super"
scratch = "case"
deadline = ""
again = false
[fetch]
local = []
max_bytes = ""
max_members = 0
max_ratio = 0
[template]
files = []
values = {}
[solver]
cores = "auto"
directory = "auto"
time_limit = ""
grace = "auto"
stop_file = ""
stall = ""
stall_action = "report"
echo = "all"
env = {}
pass_env = []
success = { exit = [0], log_pattern = "", file = "" }
[publish]
what = "changed"
include = ["**"]
exclude = []
overwrite = false
while_running = true
settle = "10s"
live = []
priority = []
cores_while_running = 1.0
delete_behind = false
compress = []
bundle = []
[purge]
when = "acknowledged"
keep = []
[resume]
files = []
command = ""
[report]
plot = []
result = []
price_core_hour = 0.0
price_gb = 0.0
openmetrics = ""
[spot]
watch = "auto"
[store]
endpoint_url = ""
region = ""
profile = ""
role_arn = ""
external_id = ""
session_name = ""
instance_role = false
addressing = "auto"
sign_payload = "auto"
sse = ""
kms_key_id = ""
expected_bucket_owner = ""
request_payer = false
part_size = "auto"
connections = "auto"
max_bandwidth = ""
first_contact = "60s"
patience = "15m"
lease = "3m"
ca_bundle = ""
"""
"""The job file of the manual, every key with its default."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


def asked(run: Path, job: str | bytes | None = JOB, *arguments: str, environ: Mapping[str, str] | None = None) -> Job:
    if job is not None:
        (run / "byos.toml").write_bytes(job.encode() if isinstance(job, str) else job)
    return settle(arguments=arguments, place=Place(run_directory=run, environ=environ or {}))


def problems(
    run: Path, job: str | bytes | None = JOB, *arguments: str, environ: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(UsageError) as caught:
        asked(run, job, *arguments, environ=environ)
    assert caught.value.code == 64
    return list(caught.value.problems)


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Names as the table of keys has them; ``solver.success`` is the one section that is written inside another."""
    flat = {}
    for name, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


# ---------------------------------------------------------------- the table


def test_the_table_holds_exactly_the_keys_of_the_manual() -> None:
    """No key of the manual is unknown, and there is no key that the manual does not have."""
    assert set(flattened(tomllib.loads(CONTRACT))) == {key.name for key in keys.KEYS}


@pytest.mark.parametrize("key", keys.KEYS, ids=lambda key: key.name)
def test_default_in_help_is_the_default_of_the_manual(key: keys.Key) -> None:
    """A key that has a default shows that one."""
    value = flattened(tomllib.loads(CONTRACT))[key.name]
    shown = tomllib.loads(f"x = {key.default or repr('')}")["x"]

    assert shown == (value if key.default else "")


@pytest.mark.parametrize("key", keys.KEYS, ids=lambda key: key.name)
def test_every_key_has_a_flag_and_a_variable(key: keys.Key, run: Path) -> None:
    """A value that no kind takes is a problem of the flag and of the variable, so both are known and read."""
    bad = "\x01" if key.kind.shape != "table" else "no assignment"
    if key.kind in {kinds.EXPRESSION, kinds.COMMAND}:
        bad = "(" if key.kind is kinds.EXPRESSION else "'"
    if key.kind.word == kinds.FIGURE.word:
        bad = "("
    if key.kind in {kinds.GLOB, kinds.PATH_INSIDE} or key.kind.word in {"GLOB", "PATH"}:
        bad = "../\0"
    flag = f"{key.flag}={bad}"

    found = problems(run, JOB, flag, environ={key.variable: bad})

    assert any(line.startswith(f"{key.flag}: ") for line in found)
    assert any(line.startswith(f"{key.variable}: ") for line in found)


SETTINGS: dict[str, Any] = {
    "fetch": model.FetchSettings(),
    "template": model.TemplateSettings(),
    "solver": model.SolverSettings(),
    "solver.success": model.Success(),
    "publish": model.PublishSettings(),
    "purge": model.PurgeSettings(),
    "resume": model.ResumeSettings(),
    "report": model.ReportSettings(),
    "spot": model.SpotSettings(),
    "store": model.StoreSettings(),
}


@pytest.mark.parametrize("key", [key for key in keys.KEYS if key.section], ids=lambda k: k.name)
def test_default_in_help_is_the_default_of_the_model(key: keys.Key) -> None:
    """What help calls the default is what a job without the key gets."""
    ours = getattr(SETTINGS[key.section], key.field or key.leaf)
    raw = tomllib.loads(f"x = {key.default}")["x"]

    if not raw or isinstance(raw, bool):
        assert bool(ours) == raw if isinstance(raw, bool) else not ours
    elif isinstance(raw, list):
        assert tuple(raw) == ours
    else:
        assert key.kind.parse(raw) == ours


def test_every_field_of_the_settings_has_a_key() -> None:
    """Nothing in the model can only be reached from inside."""
    by_section = {name: {k.field or k.leaf for k in keys.KEYS if k.section == name} for name in SETTINGS}

    for section, settings in SETTINGS.items():
        assert {field.name for field in dataclasses.fields(settings)} - {"success"} <= by_section[section]


def test_help_names_every_flag_within_80_columns() -> None:
    """Switches with their other form."""
    text = help_of_keys()

    assert max(map(len, text.splitlines())) <= 80
    for key in keys.KEYS:
        flag = key.flag.replace("--", "--[no-]", 1) if key.kind.shape == "switch" else key.flag
        assert flag in text.split()


# ---------------------------------------------------------------- a good job


def test_a_plain_job_file_becomes_a_job(run: Path) -> None:
    """Three keys suffice; the rest has its defaults."""
    assert asked(run) == Job(
        input=(S3Url("data", "in/case.zip"),),
        output=S3Url("data", "out/"),
        command=("mpirun", "-np", "{cores}", "solver"),
    )


def test_flags_alone_suffice(run: Path) -> None:
    """No job file is needed; what stands after "--" is the command, word by word."""
    job = asked(run, None, "--input", "s3://data/in/", "--output=s3://data/out", "--", "solver", "a b", "--x", "--")

    assert job.command == ("solver", "a b", "--x", "--")
    assert job.input == (S3Url("data", "in/"),)
    assert job.output == S3Url("data", "out/")


def test_the_manuals_job_file_works_as_it_stands(run: Path) -> None:
    """Defaults that are written out are the defaults."""
    assert asked(run, CONTRACT).solver == model.SolverSettings()


def test_every_setting_arrives(run: Path) -> None:
    """Each value is typed, in the unit that its field names."""
    job = asked(
        run,
        JOB.replace('"s3://data/in/case.zip"', '["s3://data/in/a.zip", "s3://data/in/b/"]')
        + """
scratch = "/scratch/case"
deadline = "11h30m"
again = true
fetch = { local = ["inputs.in"], max_bytes = "50GB", max_members = 10, max_ratio = 2.5 }
purge = { when = "never", keep = ["*.csv"] }
[solver]
cores = 8
directory = "a/b"
time_limit = 90
grace = "5s"
stop_file = "RESTART"
echo = "tail"
env = { A = "1 = 2", N = 4, E = "" }
pass_env = ["AWS_REGION"]
success = { exit = [0, 3], log_pattern = "Total wall time: ", file = "done" }
[publish]
what = "all"
include = ["*.h5"]
exclude = ["tmp/**"]
overwrite = true
priority = ["*.out"]
[store]
endpoint_url = "http://127.0.0.1:9000/"
region = "eu-central-1"
profile = "p"
role_arn = "arn:aws:iam::123456789012:role/a/b"
external_id = "id"
session_name = "run"
instance_role = true
addressing = "path"
sign_payload = "always"
sse = "aws:kms"
kms_key_id = "alias/k"
expected_bucket_owner = "123456789012"
request_payer = true
part_size = "16MiB"
connections = "64"
max_bandwidth = "2Gbit/s"
first_contact = "1m"
patience = "2d"
lease = "2s"
ca_bundle = "ca.pem"
""",
    )

    assert job == Job(
        input=(S3Url("data", "in/a.zip"), S3Url("data", "in/b/")),
        output=S3Url("data", "out/"),
        command=("mpirun", "-np", "{cores}", "solver"),
        scratch="/scratch/case",
        deadline_s=41400,
        again=True,
        fetch=model.FetchSettings(local=("inputs.in",), max_bytes=50 * 10**9, max_members=10, max_ratio=2.5),
        purge=model.PurgeSettings(when="never", keep=("*.csv",)),
        solver=model.SolverSettings(
            cores=8, directory="a/b", time_limit_s=90, grace_s=5, stop_file="RESTART", echo="tail",
            env={"A": "1 = 2", "N": "4", "E": ""}, pass_env=("AWS_REGION",),
            success=model.Success(exit=(0, 3), log_pattern="Total wall time: ", file="done"),
        ),
        publish=model.PublishSettings(
            what="all", include=("*.h5",), exclude=("tmp/**",), overwrite=True, priority=("*.out",)
        ),
        store=model.StoreSettings(
            endpoint_url="http://127.0.0.1:9000", region="eu-central-1", profile="p",
            role_arn="arn:aws:iam::123456789012:role/a/b", external_id="id", session_name="run", instance_role=True,
            addressing="path", sign_payload="always", sse="aws:kms", kms_key_id="alias/k",
            expected_bucket_owner="123456789012", request_payer=True, part_bytes=16 << 20, connections=64,
            max_bandwidth_bytes_per_s=250e6, first_contact_s=60, patience_s=172800, lease_s=2, ca_bundle="ca.pem",
        ),
    )  # fmt: skip


def test_flags_win_over_variables_over_job_file_over_defaults(run: Path) -> None:
    """One key at each level, all given above."""
    text = JOB + '[solver]\ncores = 2\necho = "tail"\nstop_file = "STOP"\n'
    environ = {"BYOS_SOLVER_CORES": "4", "BYOS_SOLVER_ECHO": "none"}

    solver = asked(run, text, "--solver-cores", "8", environ=environ).solver

    assert (solver.cores, solver.echo, solver.stop_file, solver.directory) == (8, "none", "STOP", "auto")


@pytest.mark.parametrize("nothing", ["", "0", "  "])
def test_empty_and_zero_mean_not_given_at_every_level(run: Path, nothing: str) -> None:
    """The next level below answers."""
    text = JOB + '[store]\nconnections = 7\n[solver]\ncores = 0\ntime_limit = ""\n'
    environ = {"BYOS_STORE_CONNECTIONS": nothing, "BYOS_OUTPUT": nothing, "s3_input": ""}

    job = asked(run, text, "--store-connections", nothing, f"--command={nothing}", "--", environ=environ)

    assert job.store.connections == 7
    assert job.solver.cores == 0
    assert job.solver.time_limit_s is None
    assert job.command[0] == "mpirun"


def test_auto_from_above_hides_a_number_from_below(run: Path) -> None:
    """ "auto" is a value, not the lack of one."""
    text = JOB + '[solver]\ncores = 2\ngrace = "5s"\n'

    solver = asked(run, text, "--solver-grace=auto", environ={"BYOS_SOLVER_CORES": "auto"}).solver

    assert (solver.cores, solver.grace_s) == (0, None)


def test_a_switch_can_be_turned_off_from_above(run: Path) -> None:
    """By --no-… and by a variable of 0, false or no."""
    text = JOB + "again = true\n[publish]\noverwrite = true\n"

    assert not asked(run, text, "--no-again").again
    assert not asked(run, text, environ={"BYOS_PUBLISH_OVERWRITE": "0"}).publish.overwrite
    assert asked(run, JOB, "--publish-overwrite").publish.overwrite
    assert asked(run, JOB, environ={"BYOS_AGAIN": "YES"}).again


def test_a_list_is_a_repeated_flag_or_lines_of_a_variable(run: Path) -> None:
    """A list from above replaces the one below."""
    text = JOB + '[publish]\ninclude = ["a"]\nexclude = ["b"]\n'
    environ = {"BYOS_PUBLISH_EXCLUDE": "c d\r\n\r\n*.e\n", "BYOS_PUBLISH_INCLUDE": "never"}

    publish = asked(run, text, "--publish-include", "-x", "--publish-include=y,z", environ=environ).publish

    assert publish.include == ("-x", "y,z")
    assert publish.exclude == ("c d", "*.e")


def test_tables_are_laid_over_each_other_name_by_name(run: Path) -> None:
    """A value may hold "=" and blanks; an empty one is a value."""
    text = JOB + '[solver]\nenv = { A = "file", B = "file", C = "file" }\n'
    environ = {"BYOS_SOLVER_ENV": "B=variable\nC=x=y z"}

    env = asked(run, text, "--solver-env", "A=", "--solver-env=D=1", environ=environ).solver.env

    assert env == {"A": "", "B": "variable", "C": "x=y z", "D": "1"}


def test_success_has_a_flag_for_each_of_its_parts(run: Path) -> None:
    """0 is an exit code there, not "not given"."""
    arguments = ["--solver-success-exit", "0", "--solver-success-exit", "7", "--solver-success-log-pattern", "done$"]

    success = asked(run, JOB + '[solver.success]\nfile = "x"\nexit = [1]\n', *arguments).solver.success

    assert success == model.Success(exit=(0, 7), log_pattern="done$", file="x")


def test_variables_of_the_original_script_are_understood(run: Path) -> None:
    """s3_input and s3_output mean BYOS_INPUT and BYOS_OUTPUT; both set and equal is no contradiction."""
    environ = {"s3_input": " s3://data/in/b.zip\r\n", "s3_output": "s3://data/o2", "BYOS_OUTPUT": "s3://data/o2"}

    job = asked(run, JOB, environ=environ)

    assert (job.input, job.output) == ((S3Url("data", "in/b.zip"),), S3Url("data", "o2/"))


def test_variables_for_others_are_let_be(run: Path) -> None:
    """Those of the shipped file's start and of the make targets are no mistakes."""
    asked(run, JOB, environ={"BYOS_PYTHON": "/x", "BYOS_DEV_CACHE": "/y", "BYOSX": "", "RESCALE_JOB_ID": "a"})


def test_a_place_for_scratch_does_not_replace_outside(run: Path) -> None:
    """$BYOS_SCRATCH is the key's variable, and the place where "outside" looks first."""
    outside = JOB + 'scratch = "outside"\n'

    assert asked(run, outside, environ={"BYOS_SCRATCH": "/scratch/me"}).scratch == "outside"
    assert asked(run, JOB, environ={"BYOS_SCRATCH": "/scratch/me"}).scratch == "/scratch/me"
    assert asked(run, outside, environ={"BYOS_SCRATCH": "work"}).scratch == "work"


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(b"\xef\xbb\xbf" + JOB.encode(), id="BOM"),
        pytest.param(JOB.replace("\n", "\r\n").encode(), id="CR LF"),
        pytest.param(JOB.replace("\n", "\r").encode(), id="CR alone ends lines"),
        pytest.param(JOB.replace('"\n', '\r"\n').encode(), id="CR of a table's last column before the quote"),
        pytest.param(JOB.replace('= "', '= " \t').replace('"\n', ' \\r\\n "\n').encode(), id="blanks within quotes"),
        pytest.param(JOB.replace('= "', '= "\ufeff').encode(), id="BOM of a table's first column"),
        pytest.param(("# ${x} stays\n" + JOB).encode(), id="template syntax in a comment"),
    ],
)
def test_what_spreadsheets_leave_behind_is_tolerated(run: Path, job: bytes) -> None:
    """The job is the same as without it."""
    expected = asked(run, JOB)

    assert asked(run, job) == expected


def test_whole_bucket_is_a_legal_output(run: Path) -> None:
    """With and without the slash."""
    for output in ("s3://results", "s3://results/"):
        assert asked(run, JOB, "--output", output).output == S3Url("results", "")


def test_a_broken_value_that_is_overridden_is_still_told(run: Path) -> None:
    """All problems means all."""
    assert problems(run, JOB + '[solver]\ncores = "x"\n', "--solver-cores", "8")


def test_a_job_does_not_show_the_solvers_environment(run: Path) -> None:
    """Not even in its repr."""
    assert "geheim" not in repr(asked(run, JOB, "--solver-env", "TOKEN=geheim"))


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mpirun -np {cores} x", ["mpirun", "-np", "{cores}", "x"]),
        ("a  'b c'\t\"d e\"f", ["a", "b c", "d ef"]),
        (r"a \"b\" '\n' \| \> c\ d", ["a", '"b"', r"\n", "|", ">", "c d"]),
        ("""sh -c 'x > y 2>&1; echo $Z `date`'""", ["sh", "-c", "x > y 2>&1; echo $Z `date`"]),
        (r'''sh -c "a | b \"q\" \n $X"''', ["sh", "-c", r'a | b "q" \n $X']),
        ("a '' \"\"", ["a", "", ""]),
        ("a \\\n  b\r\n", ["a", "b"]),
        ("a {b} {{cores}} # ~ * (x)", ["a", "{b}", "{{cores}}", "#", "~", "*", "(x)"]),
    ],
)
def test_a_command_text_is_split_as_a_shell_would(run: Path, text: str, words: list[str]) -> None:
    """Quotes and backslashes are honoured; nothing is expanded."""
    assert list(asked(run, JOB, "--command", text).command) == words


@given(st.text(alphabet="ab{}= '\"\\\t#*~é", max_size=20))
def test_splitting_agrees_with_shlex(text: str) -> None:
    """On all texts without a shell's own characters, also on which of them are refused."""
    try:
        expected: tuple[str, ...] | None = tuple(shlex.split("x " + text))
    except ValueError:
        expected = None
    try:
        found: tuple[str, ...] | None = kinds.command_words("x " + text)
    except ValueError:
        found = None

    assert expected == found


@pytest.mark.parametrize("sign", ["|", "&", ";", "<", ">", "$", "`", "\n"])
def test_shell_characters_lead_to_the_form_that_has_a_shell(run: Path, sign: str) -> None:
    """The hint is written out for the very command, ready to paste."""
    (line,) = problems(run, JOB, f"--command=solver a {sign} b")

    form = line.partition("write ")[2]
    assert tomllib.loads(f"x = {form}")["x"] == ["bash", "-lc", f"solver a {sign} b"]


def test_a_command_list_is_taken_as_it_is(run: Path) -> None:
    """Shell characters and blanks are what they are."""
    text = JOB.replace('"mpirun -np {cores} solver"', '["bash", "-lc", " x > y | z; $A "]')

    assert asked(run, text).command == ("bash", "-lc", " x > y | z; $A ")


# ---------------------------------------------------------------- every mistake has its line

NO_JOB: Sequence[str] = ()


def job_with(*lines: str, **changed: str) -> str:
    given = {"input": '"s3://data/in/case.zip"', "output": '"s3://data/out/"', "command": '"solver"', **changed}
    return "\n".join([*(f"{name} = {value}" for name, value in given.items() if value), *lines]) + "\n"


BAD_JOB_FILES = {
    "no input": (job_with(input=""), "input is not given: set input in byos.toml, --input or BYOS_INPUT"),
    "no output": (job_with(output='""'), "output is not given: set output in byos.toml, --output or BYOS_OUTPUT"),
    "no command": (job_with(command="[]"), "command is not given: set command in byos.toml, --command or BYOS_COMMAND"),
    "syntax": (job_with("again = yes"), "byos.toml:4: not TOML: invalid value (column 9)"),
    "twice": (job_with("again = true", "again = true"), "byos.toml:5: not TOML: cannot overwrite a value"),
    "not UTF-8": (JOB.encode() + b'scratch = "\xe9"\n', "byos.toml: it is not UTF-8 (byte "),
    "UTF-16": (JOB.encode("utf-16"), "byos.toml: it is not UTF-8 (byte 1, line 1)"),
    "too large": (JOB + "#" * (1 << 20), "byos.toml: it is larger than 1048576 bytes"),
    "nested for ever": (JOB + "scratch = " + "[" * 90000, "byos.toml: "),
    "endless number": (job_with("again = " + "9" * 5000), "byos.toml"),
    "unknown key": (job_with("[solver]", "corse = 8"), 'byos.toml:5: unknown key "solver.corse", nearest known: "solver.c'),
    "key at the top": (job_with("cores = 8"), 'byos.toml:4: unknown key "cores", nearest known: "solver.cores"'),
    "wrong section": (job_with("[solver]", "keep = []"), 'unknown key "solver.keep", nearest known: "purge.keep"'),
    "unknown section": (job_with("[stor]", "region='x'"), 'byos.toml:4: unknown section "stor", nearest known: "store"'),
    "unlike anything": (job_with("qqqqqq = 1"), 'byos.toml:4: unknown key "qqqqqq"'),
    "quoted dots": (job_with('"solver.cores" = 8'), 'byos.toml:4: unknown key "solver.cores"'),
    "section as value": (job_with("solver = 8"), "byos.toml:4: solver: it is a section, so a table is allowed"),
    "list of sections": (job_with("[[solver]]", "cores = 8"), "byos.toml:4: solver: it is a section"),
    "text for number": (job_with("[solver]", 'cores = "eight"'), 'byos.toml:5: solver.cores: found "eight", allowed: a whole'),
    "switch for number": (job_with("[solver]", "cores = true"), "byos.toml:5: solver.cores: found true, allowed: a whole"),
    "fraction": (job_with("[solver]", "cores = 1.5"), "solver.cores: found 1.5, allowed: a whole number"),
    "text for switch": (job_with('again = "yes"'), 'byos.toml:4: again: found "yes", allowed: true or false'),
    "number for switch": (job_with("again = 1"), "byos.toml:4: again: found 1, allowed: true or false"),
    "glob that leads out": (job_with("[publish]", 'include = ["../x"]'), '".." leads out: globs stay below'),
    "absolute glob": (job_with("[purge]", 'keep = ["/tmp/x"]'), "it is absolute: globs are relative"),
    "open class": (job_with("[resume]", 'files = ["a[0-9.rst"]'), '"[" is never closed'),
    "open class of a table": (job_with("[report]", 'plot = ["a[.out:1:2"]'), '"[" is never closed'),
    "number for text": (job_with("scratch = 5"), "byos.toml:4: scratch: found 5, allowed: a text"),
    "date": (job_with("deadline = 2026-01-01"), "byos.toml:4: deadline: found a date or time, allowed: a time like"),
    "list for time": (job_with("deadline = []"), "byos.toml:4: deadline: found a list, allowed: a time like"),
    "table for time": (job_with("deadline = {}"), "byos.toml:4: deadline: found a table, allowed: a time like"),
    "text for list": (job_with("[purge]", 'keep = "*"'), 'byos.toml:5: purge.keep: found "*", allowed: a list, each item a glob'),
    "number in list": (job_with("[purge]", 'keep = ["*", 5]'), "byos.toml:5: purge.keep: found a list, allowed: a list, each"),
    "number as input": (job_with(input="5"), "byos.toml:1: input: found 5, allowed: s3://BUCKET/KEY"),
    "number in command": (job_with(command='["x", 8]'), "byos.toml:3: command: found a list, a word of it is not a text"),
    "text for table": (job_with("[solver]", 'env = "A=1"'), "byos.toml:5: solver.env: allowed: names with texts"),
    "deep table": (job_with("[solver.env]", "A = 1.5"), "byos.toml:4: solver.env: the value of 'A' is not a text"),
    "bad name in table": (job_with("[solver]", 'env = { "A=B" = "1" }'), "byos.toml:5: solver.env: a name is empty, or holds"),
    "enumeration": (job_with("[purge]", 'when = "later"'), 'found "later", allowed: acknowledged | always | never'),
    "time": (job_with('deadline = "11 o\'clock"'), "byos.toml:4: deadline: found \"11 o'clock\", allowed: a time like"),
    "time backwards": (job_with('deadline = "5m 1h"'), "deadline: found"),
    "no time": (job_with('deadline = "0s"'), 'byos.toml:4: deadline: found "0s", it is not more than 0'),
    "time below zero": (job_with("deadline = -5"), "byos.toml:4: deadline: found -5, allowed: a time"),
    "time without end": (job_with("deadline = inf"), "byos.toml:4: deadline: found inf, allowed: a time"),
    "centuries": (job_with('deadline = "999999999999d"'), "it is not more than 0 and at most 366d"),
    "size": (job_with("[fetch]", 'max_bytes = "50 gigs"'), "byos.toml:5: fetch.max_bytes: found"),
    "ratio": (job_with("[fetch]", "max_ratio = nan"), "fetch.max_ratio: found nan, allowed: a number from 0"),
    "part too small": (job_with("[store]", 'part_size = "4MiB"'), 'found "4MiB", allowed: a size from 5MiB to 5GiB'),
    "part too large": (job_with("[store]", 'part_size = "6GiB"'), 'found "6GiB", allowed: a size from 5MiB to 5GiB'),
    "connections": (job_with("[store]", "connections = 257"), "found 257, allowed: a whole number from 1 to 256"),
    "bandwidth": (job_with("[store]", 'max_bandwidth = "2Gb"'), 'store.max_bandwidth: found "2Gb", allowed: a rate'),
    "exit code": (job_with("[solver.success]", "exit = [256]"), "solver.success.exit: found 256, allowed: a"),
    "expression": (job_with("[solver]", 'success = { log_pattern = "(" }'), 'byos.toml:5: solver.success.log_pattern: found "(", '),
    "file outside": (job_with("[solver.success]", 'file = "../x"'), 'found "../x", allowed: a relative path without ".."'),
    "directory outside": (job_with("[solver]", 'directory = "/x"'), 'solver.directory: found "/x", allowed: a relative'),
    "stop file outside": (job_with("[solver]", 'stop_file = "a/../../b"'), "solver.stop_file: found"),
    "variable's name": (job_with("[solver]", 'pass_env = ["A=1"]'), 'solver.pass_env: found "A=1", allowed: the name of'),
    "role": (job_with("[store]", 'role_arn = "arn:aws:iam::1:role/x"'), "store.role_arn: found"),
    "id without role": (job_with("[store]", 'external_id = "abc"'), "byos.toml:5: store.external_id: it needs store.role_arn"),
    "session without role": (job_with("[store]", 'session_name = "abc"'), "store.session_name: it needs store.role_arn"),
    "kms without sse": (job_with("[store]", 'kms_key_id = "k"', 'sse = "AES256"'), 'store.kms_key_id: it needs store.sse = "aws'),
    "owner": (job_with("[store]", 'expected_bucket_owner = "me"'), "allowed: an account of 12 digits"),
    "endpoint without scheme": (job_with("[store]", 'endpoint_url = "minio:9000"'), "allowed: http:// or https://, a host"),
    "endpoint's port": (job_with("[store]", 'endpoint_url = "http://h:99999"'), "its host or port is not one"),
    "endpoint's query": (job_with("[store]", 'endpoint_url = "http://h/?a=b"'), "store.endpoint_url: found"),
    "input is no s3 url": (job_with(input='"/data/case.zip"'), 'byos.toml:1: input: found "/data/case.zip", it does not begin'),
    "input is a bucket": (job_with(input='"s3://data"'), "it names no object; the whole bucket would be s3://BUCKET/"),
    "second input": (job_with(input='["s3://data/a", "s3://"]'), 'byos.toml:1: input: found "s3://", it names no bucket'),
    "input twice": (job_with(input='["s3://data/a", "s3://data/a"]'), 'input: "s3://data/a" is given twice'),
    "input in input": (job_with(input='["s3://data/a/", "s3://data/a/b"]'), 'of "s3://data/a/" and "s3://data/a/b" one holds'),
    "output equals": (job_with(input='"s3://data/out/"'), 'byos.toml:2: output: "s3://data/out/" equals or contains the'),
    "output equals object": (job_with(input='"s3://data/out"'), "equals or contains the input"),
    "output contains": (job_with(input='"s3://data/out/a/case.zip"'), "equals or contains the input"),
    "output is the bucket": (job_with(output='"s3://data"'), '"s3://data/" equals or contains the input'),
    "output below": (job_with(input='"s3://data/"'), 'output: "s3://data/out/" lies below the input "s3://data/"'),
    "output is ours": (job_with(output='"s3://data/x/_byos/y"'), 'holds "_byos", which is for our own objects'),
    "bash before name": (job_with(command="'OMP_NUM_THREADS=1 x'"), "byos.toml:3: command: found"),
    "open quote": (job_with(command='"x \'a b"'), "the single quote at character 3 is never closed"),
    "open double quote": (job_with(command="'x \"a b'"), "the double quote at character 3 is never closed"),
    "backslash at the end": (job_with(command="'x \\'"), "the backslash at character 3 is never closed"),
    "empty first word": (job_with(command='["", "x"]'), "command: found a list, its first word is empty"),
    "NUL in command": (job_with(command='"x \\u0000"'), "it holds a NUL"),
    "template": (job_with(input='"s3://data/${s3_input}"'), "byos.toml:1: input: the template was not rendered: ${s3_input}"),
    "template in list": (job_with("[purge]", 'keep = ["${a}${b?c}"]'), "purge.keep: the template was not rendered: ${a}, ${b}"),
    "template in table": (job_with("[solver]", "env = { A = '${ a }' }"), "solver.env: the template was not rendered: ${a}"),
    "template in name": (job_with("'${k}' = 1"), "byos.toml:4: the template was not rendered: ${k}"),
    "template later": (job_with("[template]", "values = { a = '${a}' }"), "values: the template was not rendered: ${a}"),
    "template breaks TOML": (job_with("[solver]", "cores = ${cores}"), "byos.toml:5: the template was not rendered: ${cores}"),
    "scratch above": (job_with('scratch = "../x"'), 'byos.toml:4: scratch: found "../x", it does not lie below'),
    "scratch is run directory": (job_with('scratch = "a/.."'), "it does not lie below the run directory"),
    "scratch is ours": (job_with('scratch = ".byos/x"'), "that directory is our own"),
    "scratch is root": (job_with('scratch = "/"'), "it is or holds the run directory"),
    "scratch from home": (job_with('scratch = "~/x"'), 'neither "~" nor variables are expanded'),
    "scratch from variable": (job_with('scratch = "$TMPDIR/x"'), 'neither "~" nor variables are expanded'),
}  # fmt: skip


@pytest.mark.parametrize(("job", "line"), BAD_JOB_FILES.values(), ids=BAD_JOB_FILES)
def test_each_mistake_in_a_job_file_has_one_clear_line(run: Path, job: str | bytes, line: str) -> None:
    """It says where, what was found, and what is allowed; nothing else is complained about."""
    (found,) = problems(run, job)

    assert line in found
    assert "\n" not in found
    assert not found.endswith(".")


BAD_FLAGS = {
    "typo": (["--ouput", "x"], 'unknown flag "--ouput", nearest known: "--output"'),
    "abbreviation": (["--solver-core=8"], 'unknown flag "--solver-core", nearest known: "--solver-cores"'),
    "without section": (["--cores", "8"], 'unknown flag "--cores", nearest known: "--solver-cores"'),
    "underscore": (["--solver_cores", "8"], 'unknown flag "--solver_cores", nearest known: "--solver-cores"'),
    "short": (["-n", "8"], 'unknown flag "-n"'),
    "no value": (["--input"], "--input: its value is missing"),
    "flag as value": (["--scratch", "--again"], "--scratch: its value is missing"),
    "value of a negation": (["--no-again=1"], "--no-again: it takes no value"),
    "negation of a text": (["--no-input"], 'unknown flag "--no-input"'),
    "switch": (["--again=maybe"], '--again: found "maybe", allowed: true or false'),
    "contradiction": (["--again", "--no-again"], "--again: given 2 times, and differently"),
    "stray word": (["mpirun"], '"mpirun" belongs to no flag: the command goes after "--"'),
    "bad value": (["--solver-cores", "eight"], '--solver-cores: found "eight", allowed: a whole number'),
    "bad assignment": (["--solver-env", "AB"], "--solver-env: a line has no '='"),
    "two commands": (["--command=a", "--", "b"], 'the command is given twice: by --command and after "--"'),
    "template": (["--output", "s3://data/${o}"], "--output: the template was not rendered: ${o}"),
    "template in command": (["--", "bash", "-c", "${x}"], 'command after "--": the template was not rendered: ${x}'),
    "row without table": (["--row=3"], "--row: it needs --table"),
    "no table": (["--table", "inputs.csv", "--row=1"], "inputs.csv: it cannot be read: No such file or directory"),
    "table's value": (["--table"], "--table: its value is missing"),
    "table in a bucket": (["--table=s3://data/doe/", "--row=1"], '--table: found "s3://data/doe/", it names no object'),
}


@pytest.mark.parametrize(("arguments", "line"), BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_each_mistake_on_the_command_line_has_one_clear_line(run: Path, arguments: list[str], line: str) -> None:
    """Exact names only; a value belongs to the flag before it."""
    (found,) = problems(run, JOB, *arguments)

    assert line in found


BAD_VARIABLES = {
    "typo": ({"BYOS_OUPUT": "x"}, 'unknown variable "BYOS_OUPUT", nearest known: "BYOS_OUTPUT"'),
    "without section": ({"BYOS_CORES": "8"}, 'unknown variable "BYOS_CORES", nearest known: "BYOS_SOLVER_CORES"'),
    "value": ({"BYOS_SOLVER_CORES": "-1"}, 'BYOS_SOLVER_CORES: found "-1", allowed: a whole number'),
    "switch": ({"BYOS_AGAIN": "on"}, 'BYOS_AGAIN: found "on", allowed: true or false'),
    "one line of a list": ({"BYOS_INPUT": "s3://data/a\nb"}, 'BYOS_INPUT: found "b", it does not begin with s3://'),
    "both inputs": ({"s3_input": "s3://data/a", "BYOS_INPUT": "s3://data/b"}, "s3_input and BYOS_INPUT are both set"),
    "template": ({"s3_input": "s3://${s3_input}"}, "s3_input: the template was not rendered: ${s3_input}"),
    "home": ({"HOME": "{run}"}, " is or holds $HOME"),
    "above home": ({"HOME": "{run}/a/b"}, " is or holds $HOME"),
    "scratch above home": ({"HOME": "/elsewhere/me", "BYOS_SCRATCH": "/elsewhere"}, "it is or holds $HOME"),
    "scratch at home": ({"HOME": "/elsewhere", "BYOS_SCRATCH": "/elsewhere/"}, "it is or holds $HOME"),
    "scratch above run directory": ({"BYOS_SCRATCH": "{run}/.."}, "it is or holds the run directory"),
    "scratch is run directory": ({"BYOS_SCRATCH": "{run}"}, "it is or holds the run directory"),
}


@pytest.mark.parametrize(("environ", "line"), BAD_VARIABLES.values(), ids=BAD_VARIABLES)
def test_each_mistake_in_the_environment_has_one_clear_line(run: Path, environ: dict[str, str], line: str) -> None:
    """It names the variable."""
    environ = {name: value.replace("{run}", str(run)) for name, value in environ.items()}

    (found,) = problems(run, JOB, environ=environ)

    assert line in found


TABLE = "s3_input,s3_output,angle\ns3://data/in/1,s3://data/o/1,26\ns3://data/in/2,s3://data/o/2,27\n"


def test_a_row_lies_between_flags_and_variables(run: Path) -> None:
    """Flags > row > BYOS_* > job file, and values name by name; the row is given, or the array's index."""
    (run / "inputs.csv").write_text(TABLE)
    job = JOB + '[template]\nfiles = ["*.in"]\nvalues = { angle = "1", other = "2" }\n'
    environ = {"BYOS_INPUT": "s3://data/x", "BYOS_OUTPUT": "s3://data/y", "SLURM_ARRAY_TASK_ID": "2"}

    by_index = asked(run, job, "--table", "inputs.csv", environ=environ)
    by_flag = asked(run, job, "--table=inputs.csv", "--row=1", "--output=s3://data/z", environ=environ)

    assert (2, (S3Url("data", "in/2"),), S3Url("data", "o/2/")) == (by_index.row, by_index.input, by_index.output)
    assert {"angle": "27", "other": "2"} == by_index.template.values
    assert (1, (S3Url("data", "in/1"),), S3Url("data", "z/")) == (by_flag.row, by_flag.input, by_flag.output)


def test_a_row_fills_the_template_that_the_platform_would(run: Path) -> None:
    """byos.toml.template does where there is no byos.toml; a name that is no column is an error that names it."""
    (run / "inputs.csv").write_text(TABLE)
    template = 'input = "${s3_input}"\noutput = "${s3_output}"\ncommand = "x ${angle}"\n'
    (run / "byos.toml.template").write_text(template)

    job = asked(run, None, "--table", "inputs.csv", "--row", "1")
    (run / "byos.toml.template").write_text(template + 'scratch = "${column}"\n')

    assert ("x", "26") == job.command
    assert ["byos.toml.template:4: scratch: the template was not rendered: ${column}"] == problems(
        run, None, "--table", "inputs.csv", "--row", "1"
    )


def test_problems_of_the_table_stand_beside_the_others(run: Path) -> None:
    """And what only the row could have given is not called missing."""
    (run / "inputs.csv").write_text("s3_input,s3_output\ns3://data/in/1,\n")

    assert problems(run, 'command = "${x}"\nagain = 3\n', "--table=inputs.csv", "--row=1", "--table=other.csv") == [
        "--table: given twice, and differently",
        "inputs.csv row 1 (line 2): s3_output: it is empty",
        "byos.toml:2: again: found 3, allowed: true or false",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the row is not given: --row N, or one of SLURM_ARRAY_TASK_ID, AWS_BATCH"),
        (["--row", "0x1"], '--row: found "0x1", allowed: a whole number from 1'),
        (["--row", "0"], '--row: found "0", allowed: a whole number from 1'),
    ],
    ids=["not-given", "odd", "zero"],
)
def test_a_row_that_is_none_stands_beside_problems_of_the_table(run: Path, arguments: list[str], line: str) -> None:
    """One line for each."""
    (run / "inputs.csv").write_text("s3_input\n")

    found = problems(run, JOB, "--table", "inputs.csv", *arguments)

    assert line in found[0]
    assert ['inputs.csv line 1: column "s3_output" is missing'] == found[1:]


def test_a_table_in_a_bucket_is_read_with_the_store_of_all_rows(run: Path) -> None:
    """[store] of flags, variables and job file, before any row is known."""
    seen: list[object] = []

    def read(url: S3Url, store: StoreSettings) -> bytes:
        seen.extend([url, store.region, store.endpoint_url])
        return TABLE.encode()

    (run / "byos.toml").write_text('command = "x"\ninput = "${s3_input}"\n[store]\nregion = "eu-west-1"\n')
    place = Place(run_directory=run, environ={"BYOS_STORE_ENDPOINT_URL": "http://here:1"})
    job = settle(arguments=["--table=s3://data/doe/inputs.csv", "--row=2"], place=place, read_object=read)

    assert ([S3Url("data", "doe/inputs.csv"), "eu-west-1", "http://here:1"], 2) == (seen, job.row)


def test_the_root_is_no_run_directory() -> None:
    """Also where HOME is not known."""
    arguments = ["--input", "s3://data/a.zip", "--output", "s3://data/o/", "--", "x"]

    with pytest.raises(UsageError) as caught:
        settle(arguments=arguments, place=Place(run_directory=Path("/"), environ={}))

    assert caught.value.problems == ('the run directory "/" is or holds /',)


def test_a_job_file_that_is_not_a_file_is_refused(run: Path) -> None:
    """And what it might have held is not called missing."""
    (run / "byos.toml").mkdir()

    assert problems(run, None) == ["byos.toml: it is not a file"]


def test_a_job_file_that_leads_nowhere_is_refused(run: Path) -> None:
    """A broken link is not the same as no job file."""
    (run / "byos.toml").symlink_to("gone")

    assert problems(run, None) == ["byos.toml: it cannot be read: No such file or directory"]


def test_all_problems_are_listed_at_once(run: Path) -> None:
    """Of all sources, each kind, and the missing ones too."""
    job = 'output = "s3://data/${o}"\nagain = 3\n[solver]\ncorse = 8\n'

    found = problems(run, job, "--ouput", "x", "--solver-cores", "no", environ={"BYOS_X": "", "BYOS_AGAIN": "no"})

    assert found == [
        'unknown flag "--ouput", nearest known: "--output"',
        'unknown variable "BYOS_X"',
        'byos.toml:4: unknown key "solver.corse", nearest known: "solver.cores"',
        "byos.toml:1: output: the template was not rendered: ${o}",
        "byos.toml:2: again: found 3, allowed: true or false",
        '--solver-cores: found "no", allowed: a whole number from 1 to 1048576, or "auto"',
        "input is not given: set input in byos.toml, --input or BYOS_INPUT",
        'command is not given: set command in byos.toml, --command or BYOS_COMMAND, or write the command after "--"',
    ]


def test_a_template_that_breaks_the_file_does_not_hide_the_other_ones(run: Path) -> None:
    """Each line with a variable is named, and a mistake elsewhere as well."""
    found = problems(run, "a = 1 1\n" + 'input = "${i}"\ncommand = ${c}\n')

    assert found == [
        "byos.toml:2: the template was not rendered: ${i}",
        "byos.toml:3: the template was not rendered: ${c}",
        "byos.toml:1: not TOML: expected newline or end of document after a statement (column 7)",
    ]


@pytest.mark.parametrize(
    ("job", "arguments", "environ"),
    [
        pytest.param(job_with("aws_secret_access_key = 'geheim'"), [], {}, id="unknown key"),
        pytest.param(JOB, ["--secret-key", "geheim"], {}, id="unknown flag"),
        pytest.param(JOB, ["--secret-key=geheim"], {}, id="unknown flag, joined"),
        pytest.param(JOB, [], {"BYOS_SECRET": "geheim"}, id="unknown variable"),
        pytest.param(JOB, ["--solver-env", "geheim"], {}, id="half an assignment"),
        pytest.param(JOB, ["--solver-env", "A=x", "my", "geheim"], {}, id="assignment that lost its quotes"),
        pytest.param(job_with("[solver]", 'env = { A = ["geheim"] }'), [], {}, id="wrong type in a table"),
        pytest.param(job_with("[solver]", 'env = "A=geheim"'), [], {}, id="text for a table"),
        pytest.param(job_with("[solver]", 'env = { A = "geheim ${x}" }'), [], {}, id="template in a table"),
        pytest.param(JOB, ["--store-endpoint-url", "http://user:geheim@host:9000"], {}, id="endpoint"),
        pytest.param(JOB, ["--store-endpoint-url", "http://user:ge/heim@host:9000/"], {}, id="endpoint, odd password"),
        pytest.param(JOB, ["--input", "s3://key:geheim@data/x"], {}, id="input"),
    ],
)  # fmt: skip
def test_no_problem_holds_a_secret(run: Path, job: str, arguments: list[str], environ: dict[str, str]) -> None:
    """Names are told, such values are not."""
    text = "\n".join(problems(run, job, *arguments, environ=environ))

    assert "geheim" not in text
    assert "ge/heim" not in text


def test_control_characters_do_not_reach_the_terminal(run: Path) -> None:
    """Whatever is quoted is escaped."""
    found = problems(run, JOB, "--\x1b[2J", "\udcff", "--scratch", "a\x1b]0;x\x07", environ={"BYOS_\x1b": "1"})

    assert len(found) == 3
    assert "".join(found).isprintable()


# ---------------------------------------------------------------- units


@given(st.tuples(*(st.integers(0, most) for most in (300, 23, 59, 59))).filter(any))
def test_a_written_time_is_read_back(parts: tuple[int, ...]) -> None:
    """With or without blanks; parts that are 0 may be left out."""
    seconds = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1)))
    written = [f"{part}{unit}" for part, unit in zip(parts, "dhms") if part]

    assert kinds.duration_s("".join(written)) == kinds.duration_s(" ".join(written)) == seconds
    assert kinds.duration_s(str(seconds)) == seconds


@given(st.integers(0, 10**6), st.sampled_from(["B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_a_written_size_is_read_back(number: int, unit: str) -> None:
    """kB is 1000, KiB is 1024; case does not count."""
    base = 1024 if "i" in unit else 1000
    expected = number * base ** "BKMGT".index(unit[0].upper())

    assert kinds.size_bytes(f"{number}{unit}") == kinds.size_bytes(f"{number} {unit.lower()}") == expected


@pytest.mark.parametrize(
    ("text", "rate"),
    [("2Gbit/s", 250e6), ("100MB/s", 100e6), ("1.5 MiB/s", 1.5 * 2**20), ("800 kbit/s", 1e5), ("5B/s", 5.0)],
)
def test_bandwidth_tells_bits_from_bytes(text: str, rate: float) -> None:
    """Always in bytes per second."""
    assert kinds.bandwidth_bytes_per_s(text) == rate


# ---------------------------------------------------------------- whatever comes


ODD = ["", "0", "-1", "{}", "[]", "[[1]]", "{a=1}", "nan", "-inf", "1e400", "1979-05-27", "07:32:00", "'\\u0000'", '"\\u0000"',
       "'[['", "'(?P<'", "'s3://'", "'s3://a/../'", "'http://[::1'", "'http://x:y'", "'//@'", "'~'", "'" + "a" * 5000 + "'",
       "[true]", "['', 0]", "{a={b=[]}}", "9223372036854775808", "'1.1.1'", "'\ud7ff\U0010ffff'", "'=:='", "'${'"]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_end_in_problems_and_in_nothing_else(run: Path, odd: str) -> None:
    """Each value at each key, in the file, as a variable and as a flag at once: a Job, or lines for people."""
    text = odd.strip("'")
    lines: list[str] = []
    for key in keys.KEYS:
        section = f"[{key.section}]\n" if key.section else ""
        try:
            asked(run, f"{section}{key.leaf} = {odd}\n", f"{key.flag}={text}", environ={key.variable: text})
        except UsageError as error:
            lines += error.problems

    assert lines
    assert all(line.isprintable() and len(line) < 500 for line in lines)
