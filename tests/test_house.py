"""The import law of the house: who may import whom, read from the syntax tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "agent" / "byos_run"
GROUND = {"model", "uploads", "errors", "crc", ""}  # "" is the package itself, for its version
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": GROUND | {"run", "commands", "steps", "log", "node"},
    "run": GROUND | {"chapters", "opening", "book", "steps", "node", "log", "terminal"},
    "disk": GROUND | {"node", "log"},
    "publishing": GROUND | {"ledger", "disk", "endings", "opening", "steps", "bucket", "node"},
    "sentences": GROUND | {"steps", "log"},
    "reporting": GROUND | {"opening", "book", "steps", "bucket", "node", "page"},
    "chapters": GROUND
    | {"succession", "resuming", "publishing", "reporting", "sentences", "endings", "opening", "book"}
    | {"steps", "bucket", "node", "log"},
    "endings": GROUND | {"node"},
    "succession": GROUND | {"resuming", "ledger", "opening", "steps", "bucket", "node"},
    "resuming": GROUND | {"steps", "archive", "bucket", "node", "log"},
    "ledger": GROUND | {"steps", "node"},
    "opening": GROUND | {"endings", "book", "steps", "bucket", "node", "log"},
    "book": GROUND | {"node", "log"},
    "commands": GROUND | {"book", "steps", "archive", "bucket", "node", "page", "log", "terminal"},
    "steps": GROUND | {"archive", "bucket", "node", "page", "log"},
    "archive": GROUND,
    "bucket": GROUND,
    "node": GROUND,
    "page": GROUND | {"log"},
    "log": GROUND | {"terminal"},
    "terminal": GROUND,
    "model": set(),
    "uploads": {"model"},
    "errors": set(),
    "crc": set(),
    "__init__": set(),
}
PART_OF_A_STEP = {
    "keys", "kinds", "sources", "spare", "words", "entries", "inventory", "inherited", "rows", "table", "worth", "ahead", "behind",
    "figures", "packing", "strangers", "design", "kit_texts", "outlook", "policy", "kept", "documents",
}  # fmt: skip
"""Modules that one step is made of; they are no steps."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(dotted: str) -> str:
    """byos_run.bucket.wire → bucket; byos_run → ""."""
    return dotted.split(".")[1] if "." in dotted else ""


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "byos_run" else node.module for alias in node.names
            }
    return {name for name in found if name.split(".")[0] == "byos_run"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    """A room imports only what lies below it; a step knows no other step; rooms of one floor do not know each other."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0]
    for name in imports_of(path):
        target = room_of(name)
        if target == "__version__" or name == "byos_run.__version__":
            continue
        if target == room:
            other = name.split(".")[2] if room == "steps" and name.count(".") > 1 else parts[-1]
            assert other == parts[-1] or other in PART_OF_A_STEP, f"{path.name} imports {name}"
            continue
        assert target in MAY_IMPORT[room], f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_readable(path):
    """No module grows past 450 lines without somebody asking which room's work it does; none is called utils.

    The model has a line for every key of the job file.
    """
    assert len(path.read_text().splitlines()) <= (550 if path.stem == "model" else 450)
    assert not re.fullmatch(r"(utils?|helpers?|common|manager)", path.stem)


def test_no_state_at_module_level():
    """Nothing is remembered between two runs in one process: no module-level list, dict or set that code changes."""
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            assert not isinstance(node, ast.Global)
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.Dict, ast.Set)):
                for target in node.targets:
                    assert isinstance(target, ast.Name)
                    assert target.id.isupper() or target.id.strip("_").isupper() or target.id == "__all__", (
                        f"{path}: {target.id}"
                    )
