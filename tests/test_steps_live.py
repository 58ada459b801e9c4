"""The ends of growing files, shown in a real bucket."""

from __future__ import annotations

from tests.kit.runs import config_text

from byos_run.bucket.session import Session
from byos_run.model import Identity, Output, Place, S3Url, StoreSettings
from byos_run.node import files
from byos_run.node.stop import Stop
from byos_run.steps.live import Live


def test_the_last_mebibyte_is_shown_and_only_when_it_grew(bucket, minio_store, tmp_path):
    """A file larger than a MiB is shown by its end; one that did not change is not sent again."""
    (tmp_path / "config").write_text(config_text(minio_store))
    session = Session(settings=StoreSettings(endpoint_url=minio_store.endpoint_url), place=Place(tmp_path, {}))
    wire = session.wire(bucket.name, stop=Stop())
    path = tmp_path / "thermo.out"
    path.write_bytes(b"a" * (1 << 20) + b"end\n")
    output = Output("thermo.out", "thermo.out", Identity(0, 0, 0, 0), tmp_path)
    live = Live(wire, prefix=S3Url(bucket.name, "out/"), opened=files.open_output)

    live.show([output, Output("gone", "gone", Identity(0, 0, 0, 0), tmp_path)])
    first = bucket.get("out/_byos/live/thermo.out")
    wire.request("DELETE", "out/_byos/live/thermo.out")
    live.show([output])
    still = bucket.sizes("out/")
    path.write_bytes(b"short")
    live.show([output])
    session.close()

    assert first == b"a" * ((1 << 20) - 4) + b"end\n"
    assert still == {}
    assert bucket.get("out/_byos/live/thermo.out") == b"short"
