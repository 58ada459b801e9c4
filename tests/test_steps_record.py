"""The manifest as it is written: what lists 100,000 outputs is made in the memory of its text."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from byos_run.model import Attempt, Identity, Job, Output, Published, S3Url
from byos_run.steps import documents, record
from byos_run.steps.record import Account, Handed

COUNT = 10_000


def published(number):
    path = f"step/field{number:06d}.dat"
    output = Output(path, path, Identity(1, 1, 1, number), Path("/case"))
    return Published(output, f"out/{path}", 1, "AAAAAA==", f'"{number:032x}"', output.identity, 0.5)


def account(count):
    url = S3Url("bucket", "out/")
    return Account(
        job=Job(input=(url,), output=url, command=("x",)), attempt=Attempt("0" * 32, 2, 1.0), digest="", fetched=(), solved=None,
        published=tuple(map(published, range(count))), unpublished=(), skipped=(), directory_links={}, phases=(), warnings=(),
        ended_by=None, ended_at=2.0, before={}, results={},
        handed=Handed(outputs=[{"path": "earlier", "attempt": 1}], attempts={("out/step/field000001.dat", f'"{1:032x}"'): 1}),
    )  # fmt: skip


def test_a_manifest_takes_the_memory_of_its_text():
    """The outputs of this attempt, each with the number of the one that wrote it, then what was handed down; one line each."""
    told = account(COUNT)
    tracemalloc.start()
    try:
        text = documents.document(record.manifest(told))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    listed = json.loads(text)["outputs"]
    assert [item["path"] for item in listed] == [*(f"step/field{n:06d}.dat" for n in range(COUNT)), "earlier"]
    assert [item["attempt"] for item in listed[:3]] == [2, 1, 2]
    assert max(len(line) for line in text.splitlines()) < 400
    assert peak_bytes < 2.5 * len(text)


def test_a_document_is_json_of_any_shape():
    """Empty lists, names that are not ASCII, values that only have a text."""
    values = {"ü": [], "a": [1, {"b": [2]}], "c": (1, "x"), "d": {"e": None}, "f": Path("/x")}

    assert json.loads(documents.document(values)) == {
        "ü": [],
        "a": [1, {"b": [2]}],
        "c": [1, "x"],
        "d": {"e": None},
        "f": "/x",
    }
