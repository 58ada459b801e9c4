"""What a run shows of itself: samples, the page, figures of the solver's tables; from outside."""

from __future__ import annotations

import json

import zstandard
from tests.scenarios.test_whole_run import job

HEAD = "# time pressure cells\\n# (s) (MPa) (-)\\n"
TABLE = f"printf '{HEAD}' > t.out; for i in 1 2 3 4; do echo \"$i $((i * i)) 7\" >> t.out; done; "
REPORT = {
    "plot": ["t.out:1:2,3"],
    "result": ["t.out:2", "residual = (\\S+)"],
    "price_core_hour": 0.05,
    "price_gb": 0.023,
}


def metrics(bucket):
    return json.loads(zstandard.ZstdDecompressor().decompress(bucket.get("out/run/_byos/metrics.json.zst"), 1 << 24))


def page(bucket):
    return bucket.get("out/run/_byos/report.html").decode()


def test_a_run_leaves_its_samples_and_its_page(run_byos, bucket):
    """Columns of equal length that only grow where they count; a page with the results; both are below `_byos/`."""
    command = TABLE + "echo 'residual = 1e-3'; echo 'residual = 2.5e-06'; sleep 2.2; echo x > big.h5"
    ran = run_byos(job(bucket, command, report=REPORT), platform=True)

    assert 0 == ran.code, ran.output
    found = metrics(bucket)
    lengths = {len(column) for column in found["columns"].values()}
    assert 1 == len(lengths), found["columns"].keys()
    assert lengths.pop() >= 4
    for name in ("at", "ranks_cpu_s", "node_cpu_s", "agent_cpu_s", "bytes_in", "bytes_out"):
        assert found["columns"][name] == sorted(found["columns"][name]), name
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert {"t.out:2": 16.0, "residual = (\\S+)": 2.5e-06} == manifest["results"]
    assert {"core_hour": 0.05, "gb": 0.023} == manifest["price"]
    assert found["columns"]["bytes_out"][-1] >= sum(item["bytes"] for item in manifest["outputs"])
    assert found["run_id"] == manifest["run_id"]
    text = page(bucket)
    assert "pressure (MPa)" in text
    assert "over time (s)" in text
    assert len(text.encode()) < 300_000
    assert bucket.store.secret_key not in text
    assert [] == ran.left()


def test_samples_go_to_a_node_exporter_while_the_run_lives(run_byos, bucket, tmp_path):
    """The file is there while the solver runs, whole; it is neither an output nor left behind."""
    command = "sleep 1.2; cat ../node.prom > seen.txt"
    ran = run_byos(job(bucket, command, report={"openmetrics": "node.prom"}), platform=True)

    assert 0 == ran.code, ran.output
    seen = bucket.get("out/run/seen.txt").decode()
    assert "byos_run_fetched_bytes_total" in seen
    assert seen.endswith("# EOF\n")
    assert not [key for key in bucket.sizes("out/run/") if "prom" in key]
    assert [] == ran.left()


def test_a_report_that_cannot_be_made_does_not_end_a_run(run_byos, bucket):
    """Figures that are nowhere and a place that cannot be written to are warnings."""
    asked = {"plot": ["none.out:1:2"], "result": ["none.out:3", "never (\\d+)"], "openmetrics": "/proc/none/x.prom"}
    ran = run_byos(job(bucket, "true", report=asked), platform=True)

    assert 0 == ran.code, ran.output
    assert 4 == ran.output.count("warning: report.")
    assert {} == bucket.json("out/run/_byos/manifest.json")["results"]


def test_a_run_that_ends_before_the_solver_has_a_page_that_says_why(run_byos, bucket):
    """The error, the code and what to do; no secret, no value of solver.env."""
    asked = job(bucket, "true", solver={"env": {"TOKEN": "very-secret-value"}}, report={"result": ["x"]})
    bucket.put("in/case.zip", b"PK\x03\x04 but no zip")
    ran = run_byos(asked, platform=True)

    assert 65 == ran.code, ran.output
    text = page(bucket)
    assert "Exit 65, byos-run&#x27;s code. Pack the case again" in text
    assert "solver.env" in text
    assert "TOKEN" in text
    assert "very-secret-value" not in text
    assert bucket.store.access_key not in text


def test_tables_that_the_report_reads_outlive_deletion_behind_the_solver(run_byos, bucket):
    """What is removed as it is acknowledged is not what the page still needs."""
    publish = {"delete_behind": True, "settle": "0.2s"}
    large = "{ head -c 1500000 /dev/zero | tr '\\0' '#'; echo; cat t.out; } > large.out; head -c 2000000 /dev/zero > gone.h5; "
    wait = "for i in $(seq 80); do [ -e gone.h5 ] || break; sleep 0.1; done; sleep 0.5; ls > seen"
    ran = run_byos(
        job(bucket, TABLE + large + wait, publish=publish, report={"result": ["large.out:2"]}), platform=True
    )

    assert 0 == ran.code, ran.output
    seen = bucket.get("out/run/seen").decode().split()
    assert ("gone.h5" in seen, "large.out" in seen) == (False, True)
    assert {"large.out:2": 16.0} == bucket.json("out/run/_byos/manifest.json")["results"]
