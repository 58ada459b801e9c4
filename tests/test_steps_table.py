"""The table of a DOE: what spreadsheets leave is taken out, every problem is named with its row, all at once."""

from __future__ import annotations

import time

import pytest

from byos_run.errors import UsageError
from byos_run.steps import table

HEAD = "s3_input,s3_output"


def rows_of(text: str | bytes) -> list[dict[str, str]]:
    data = text.encode() if isinstance(text, str) else text
    return [dict(row.cells) for row in table.parse(data, name="inputs.csv").rows]


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(UsageError) as caught:
        rows_of(text)
    return [problem.replace("inputs.csv ", "", 1) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD},angle\ns3://data/a.zip,s3://data/o/1,26\n",
        f"\ufeff{HEAD},angle\r\ns3://data/a.zip,s3://data/o/1,26\r\n",
        f"{HEAD},angle,,\n s3://data/a.zip\t, s3://data/o/1 ,26,,\n,,,,\n\n",
        '"s3_input",s3_output,angle\n"s3://data/a.zip","s3://data/o/1","26"',
        "angle,s3_output,s3_input\n26,s3://data/o/1,s3://data/a.zip\n",
    ],
    ids=["plain", "bom-crlf", "blanks-and-empty-columns", "quoted", "other-order"],
)
def test_what_spreadsheets_leave_is_taken_out(text):
    """BOM, CR LF, blanks, quotes, empty columns and blank rows at the end."""
    assert [{"s3_input": "s3://data/a.zip", "s3_output": "s3://data/o/1", "angle": "26"}] == rows_of(text)


def test_a_cell_holds_commas_quotes_and_several_inputs():
    """As csv has it; one input a line."""
    (row,) = table.parse(
        f'{HEAD},note\n"s3://data/a,b.zip\ns3://data/c/",s3://data/o/,"say ""x"", now"\n'.encode(), name="t"
    ).rows

    assert ["s3://data/a,b.zip", "s3://data/c/"] == [str(url) for url in row.inputs]
    assert {"note": 'say "x", now'} == row.values


def test_further_columns_are_values_but_for_empty_cells():
    """An empty cell gives no value: the name stays in the case file, where it is seen."""
    first, second = table.parse(
        f"{HEAD},a,b\ns3://d11/x,s3://d11/1,0,\ns3://d11/x,s3://d11/2,1.5,2\n".encode(), name="t"
    ).rows

    assert ({"a": "0"}, {"a": "1.5", "b": "2"}) == (first.values, second.values)


BAD = {
    "empty": ("", ["line 1: the header is missing: s3_input,s3_output and columns for template.values"]),
    "no column": ("s3_input,angle\n", ['line 1: column "s3_output" is missing']),
    "column twice": (f"{HEAD},a,a\n", ['line 1: column "a" is there twice']),
    "no name": (f"{HEAD},,a\n", ["line 1: column 3 has no name"]),
    "semicolons": (
        "s3_input;s3_output\n",
        [
            'line 1: column "s3_input" is missing',
            'line 1: column "s3_output" is missing',
            "line 1: its cells are not separated by commas",
        ],
    ),
    "no rows": (f"{HEAD}\n\n,\n", ["inputs.csv: it has no rows below its header"]),
    "utf-16": (f"{HEAD}\n".encode("utf-16"), ['inputs.csv: it is UTF-16: save it as "CSV UTF-8"']),
    "latin-1": (
        f"{HEAD},größe\n".encode("latin-1"),
        ['inputs.csv: it is not UTF-8 (byte 22, line 1): save it as "CSV UTF-8"'],
    ),
    "nul": (f"{HEAD}\na\0", ["inputs.csv: it holds a NUL (line 2): it is no csv"]),
    "open quote": (f'{HEAD}\n"s3://data/a,x\n', ["line 2: not a csv: unexpected end of data"]),
}


@pytest.mark.parametrize(("text", "found"), BAD.values(), ids=BAD)
def test_what_is_no_table_is_said(text, found):
    """One line that names the file, the line and the reason."""
    assert found == problems_of(text)


def test_every_problem_of_every_row_is_listed_at_once():
    """With row and line; a blank row shifts all numbers after it, so it is one."""
    found = problems_of(
        f"{HEAD},a\ns3://data/in/1,s3://data/o/1,x\n\ns3://data/in/1,s3://data/o/1/,x\n"
        "data/in/2,s3://data/o/2,x\ns3://data/in/3,,x\ns3://data/in/4,s3://data/o/4\n"
        "s3://data/in/5,s3://data/o/1/more,x\ns3://data/o/1/z.zip,s3://data/o/6,x\ns3://data/pre/,s3://data/pre/o,x\n"
    )

    assert [
        "row 2 (line 3): it is blank, which would shift the numbers of all that follow",
        'row 4 (line 5): s3_input: found "data/in/2", it does not begin with s3://',
        "row 5 (line 6): s3_output: it is empty",
        "row 6 (line 7): it has 2 cells, the header has 3 columns",
        'rows 1 and 3: s3_output is the same: "s3://data/o/1/"',
        'rows 1 and 7: s3_output of the second lies in that of the first: "s3://data/o/1/more/"',
        'row 1: s3_output "s3://data/o/1/" equals or holds the input of row 8',
        'row 9: s3_output "s3://data/pre/o/" lies below the input of row 9',
    ] == found


def test_neighbours_by_name_do_not_meet():
    """Prefixes meet on "/" borders alone, and in one bucket."""
    outputs = ("s3://data/o/1", "s3://data/o/10", "s3://data/o/1-2/", "s3://other/o/1/")

    assert 4 == len(rows_of("\n".join([HEAD, *(f"s3://data/in/1,{output}" for output in outputs)])))


def test_ten_thousand_rows_are_read_at_once():
    """In seconds even where each of them is wrong, and then the list ends somewhere."""
    good = "\n".join([HEAD, *(f"s3://data/in/c{n}.zip,s3://data/out/c{n}" for n in range(10_000))])
    bad = "\n".join([HEAD, *(f"s3://data/in/c{n}.zip,s3://data/out/c" for n in range(10_000))])
    started = time.monotonic()

    assert 10_000 == len(rows_of(good))
    found = problems_of(bad)
    assert (201, "inputs.csv: and 9,799 more problems") == (len(found), found[-1])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("environ", "row"),
    [
        ({"SLURM_ARRAY_TASK_ID": "7"}, 7),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 1),
        ({"JOB_COMPLETION_INDEX": "19"}, 20),
        ({"PBS_ARRAY_INDEX": "3"}, 3),
        ({"PBS_ARRAYID": "3"}, 3),
        ({"SGE_TASK_ID": "4"}, 4),
        ({"LSB_JOBINDEX": "5"}, 5),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_array_index_of_each_scheduler_is_a_row(environ, row):
    """AWS Batch and Kubernetes count from 0, the others as they were told."""
    assert row == table.number_of(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_ARRAY_TASK_ID": "0"},
        {"SGE_TASK_ID": "undefined"},
        {"LSB_JOBINDEX": "0"},
        {"JOB_COMPLETION_INDEX": "-1"},
    ],
    ids=str,
)
def test_an_index_that_is_no_row_is_refused(environ):
    """A job that is no array has 0 or "undefined" there."""
    with pytest.raises(UsageError):
        table.number_of(environ)


def test_a_row_out_of_range_says_how_many_there_are():
    """Rows count from 1."""
    found = table.parse(f"{HEAD}\ns3://data/a,s3://data/b\n".encode(), name="inputs.csv")

    for number in (0, 2):
        with pytest.raises(UsageError, match=f"there is no row {number}: it has 1, counted from 1"):
            found.row(number)


def test_a_template_is_filled_as_the_platform_does_it():
    """Each column by its name; what is none stays."""
    cells = {"s3_input": "s3://a/b", "angle": "26", "a b": "x$1\\"}

    assert "s3://a/b 26 x$1\\ ${no} $angle {angle}" == table.fill(
        "${s3_input} ${ angle } ${a b} ${no} $angle {angle}", cells
    )
