"""A small case of text files, for rehearsing without one's own: a zip, or plain files."""

from __future__ import annotations

import zipfile  # noqa: TID251 - it writes one here, and reads none
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

_LINES = 20_000


def sample_members(globs: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """Path → text. Each of *globs* names one of them, and each of these names every one of *names* as ``${name}``."""
    fillable = "# a sample case of byos-run\n" + "".join(f"{name} = ${{{name}}}\n" for name in names)
    paths = [glob.strip("/").replace("**/", "").replace("*", "sample").replace("?", "x") for glob in globs]
    table = "".join(f"{line} {line * 0.001:.6f} {line % 97}\n" for line in range(_LINES))
    return {"mesh/surface.dat": table, "inputs.in": fillable, **dict.fromkeys(paths, fillable)}


def write_zip(path: Path, members: Mapping[str, str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
