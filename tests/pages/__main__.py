"""The pictures of README: `make pictures`. A page of a real run, and one of an imagined DOE, each light and dark."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.kit import cache, cases, runs, stores
from tests.kit.browser import browser
from tests.kit.doe import STARTED_AT, imagined

sys.path.insert(0, str(runs.TOP / "agent"))

from byos_run.page.doe import Doe, doe_page
from byos_run.page.facts import facts_of

HERE = Path(__file__).parent
BUCKET = "my-simulation-data"
WIDTH = 1180
STEPS = 900


def main() -> int:
    cache.surroundings()
    with tempfile.TemporaryDirectory() as directory, browser() as chromium:
        here = Path(directory)
        (here / "run.html").write_bytes(page_of_a_run(here))
        top = f"s3://{BUCKET}/output/hsdi/"
        found = [facts_of(each, place=each["output"]) for each in (imagined(n, top=top, size=48) for n in range(200))]
        parameters = {
            each.place: {"angle": str(n % 40), "inflow": str(n * 7 % 100 / 10)} for n, each in enumerate(found)
        }
        (here / "doe.html").write_text(doe_page(Doe(top, found, STARTED_AT + 7000, parameters)))
        for name, height in (("run", 1300), ("doe", 1500)):
            for scheme in ("light", "dark"):
                chromium.open(here / f"{name}.html", width=WIDTH, dark=scheme == "dark")
                picture = HERE / f"{name}-{scheme}.webp"
                chromium.picture(picture, height=height)
                print(f"{picture.relative_to(runs.TOP)}  {picture.stat().st_size / 1000:.0f} kB")
    return 0


def page_of_a_run(here: Path) -> bytes:
    """Eight LAMMPS ranks through the shipped file."""
    with stores.scratch() as directory, stores.any_store(directory) as store:
        client = store.client()
        client.create_bucket(Bucket=BUCKET)
        archive = cases.chute(here / "chute.zip", steps=STEPS)
        client.put_object(Bucket=BUCKET, Key="input/chute.zip", Body=archive.read_bytes())
        job = {
            "input": f"s3://{BUCKET}/input/chute.zip", "output": f"s3://{BUCKET}/output/chute/",
            "command": "mpirun -np {cores} lmp -in in.case", "solver": {"echo": "none"}, "publish": {"settle": "2s"},
            "report": {"plot": ["log.lammps:1:3,4"], "price_core_hour": 0.04},
        }  # fmt: skip
        runs.lay_out(here / "run", file=runs.shipped_file(), store=store, job=job)
        path = f"{cache.get('mpich') / 'bin'}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(here), "LANG": "C.UTF-8", **runs.PLATFORM, **cases.RANKS_SHARE_CORES}
        ran = runs.run(here / "run", env=env, timeout_s=1200)
        if ran.code:
            raise RuntimeError(ran.output)
        body: bytes = client.get_object(Bucket=BUCKET, Key="output/chute/_byos/report.html")["Body"].read()
        client.close()
        return body


if __name__ == "__main__":
    raise SystemExit(main())
