"""`byos-run report`: the runs below a prefix as one page, from outside."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.kit import doe
from tests.kit.pages import Page


@pytest.fixture
def report(run_byos, bucket):
    """report("doe/", "--json") → what came of it, without a job file."""

    def go(prefix, *flags, **more):
        endpoint = bucket.store.endpoint_url
        return run_byos(None, "report", bucket.url(prefix), *flags, "--store-endpoint-url", endpoint, **more)

    return go


def put(bucket, number, prefix="doe/", **parts):
    place = f"{prefix}run-{number}/"
    manifest = {**doe.imagined(number), "output": bucket.url(place), **parts}
    bucket.put(f"{place}_byos/manifest.json", json.dumps(manifest))
    doe.write_status(bucket, place, phase="over", exit_code=manifest["exit_code"])
    return manifest


def test_a_doe_becomes_one_page(report, bucket):
    """Runs that ended, one that runs, one that was refused, one that never started: each is there, in natural order."""
    for number in (1, 2, 5, 10):
        put(bucket, number)
    doe.write_status(bucket, "doe/run-11/", phase="solve")
    doe.write_status(bucket, "doe/run-12/", phase="over", exit_code=66, cause="the input is not there")
    table = "".join(f"{bucket.url('in.zip')},{bucket.url(f'doe/run-{n}')},{n * 2}\n" for n in (1, 2, 5, 10, 11, 12, 13))
    bucket.put("inputs.csv", "s3_input,s3_output,angle\n" + table)
    ran = report("doe/", "--table", bucket.url("inputs.csv"), "-o", "page.html")

    assert (0, "") == (ran.code, ran.error)
    assert "7 runs: 3 complete, 1 solver-failed, 1 running, 1 refused, 1 waiting" in ran.output
    assert ["byos-run", "config", "page.html"] == ran.left()
    page = Page((ran.directory / "page.html").read_text())
    names = [cell.text for cell in page.all("td", "path") if cell.attributes.get("id")]
    assert [f"run-{n}" for n in (1, 2, 5, 10, 11, 12, 13)] == names
    causes = " ".join(element.text for element in page.all("div", "cause"))
    assert "rank 3 was killed by signal 9" in causes
    assert "the input is not there" in causes
    assert "Compare the key with the bucket" in causes


def test_the_figures_as_json(report, bucket):
    """Nothing is written; every run with its phases, results, parameters, cost's parts; the last heartbeat knows of a 76."""
    put(bucket, 1)
    put(bucket, 2)
    doe.write_status(bucket, "doe/run-2/", phase="over", exit_code=76)
    ran = report("doe", "--json", "--report-price-core-hour", "2")

    assert (0, "") == (ran.code, ran.error)
    assert ["byos-run", "config"] == ran.left()
    found = json.loads(ran.output)
    one, two = found["runs"]
    assert set(one["phases"]) == {"claim", "fetch", "solve", "publish"}
    assert (0, 76) == (one["exit_code"], two["exit_code"])
    assert one["saved_core_s"] > 0
    hours = found["totals"]["core_hours"]
    assert found["totals"]["cost"] == pytest.approx(2 * hours + 2 * 0.023 * one["size_bytes"] / 1e9)


def test_a_page_in_the_bucket(report, bucket):
    """--publish writes below the prefix, is read again without harm, and does not overwrite the page of a lone run."""
    put(bucket, 1)
    assert 0 == report("doe/", "--publish").code
    Page(bucket.get("doe/_byos/report.html").decode())
    assert "1 run: 1 complete" in report("doe/", "--publish").output
    ran = report("doe/run-1/", "--publish")
    assert (64, True) == (ran.code, "is one run" in ran.error)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing/",), 66, "holds no run"),
        (("doe/", "-o", "a", "--publish"), 64, "one of them"),
        (("doe/", "-o", "no/such/directory/x.html"), 71, "cannot be written"),
        (("doe/", "--solver-cores", "3"), 64, "report does not use it"),
    ],
    ids=["no run", "two places", "no directory", "not its key"],
)
def test_what_cannot_be_done_is_said(report, bucket, arguments, code, said):
    """One line, the code of its kind, nothing written."""
    put(bucket, 1)
    ran = report(*arguments)

    assert code == ran.code, ran.error
    assert said in ran.error
    assert ["byos-run", "config"] == ran.left()


def test_broken_manifests_are_runs_too(report, bucket):
    """A page, whatever lies there."""
    for number, body in enumerate(
        [b"", b"[]", b"{}", b"\xff", b'{"phases": 5, "solver": [], "outputs": {}}', b"[" * 100_000]
    ):
        bucket.put(f"doe/{number}/_byos/manifest.json", body)
    ran = report("doe/", "--json")

    assert (0, "") == (ran.code, ran.error)
    assert 6 == len(json.loads(ran.output)["runs"])


def test_many_runs_are_read_at_once(report, bucket):
    """From the bucket to the page, without an `-o`: the default name. (1,000 runs: 3 s on two idle cores.)"""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(bucket, number), range(120)))
    ran = report("doe/")

    assert (0, "") == (ran.code, ran.error)
    assert "120 runs: " in ran.output
    assert 120 == len(list(Page((ran.directory / "byos-report.html").read_text()).all("li")))
