"""The JSON objects below ``_byos/``: how they are written, and as far as they can be believed when they are read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def document(values: Mapping[str, Any]) -> bytes:
    """JSON for people and programs; what is in a list has a line each.

    A manifest of 100,000 outputs takes the memory of its text: ``json.dumps`` with *indent* takes ten times as much.
    """
    body = io.BytesIO()

    def write(text: str) -> None:
        body.write(text.encode())

    for at, (name, value) in enumerate(sorted(values.items())):
        write(f"{',' if at else '{'}\n {json.dumps(name)}: ")
        if not isinstance(value, Sequence) or isinstance(value, str):
            write(json.dumps(value, sort_keys=True, default=str))
            continue
        write("[")
        for place, each in enumerate(value):
            write(f"{',' if place else ''}\n  {json.dumps(each, sort_keys=True, default=str)}")
        write("\n ]" if value else "]")
    write("\n}\n")
    return body.getvalue()


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in *body*; empty for anything else: what lies in a bucket is not to be trusted."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
