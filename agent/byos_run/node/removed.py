"""What a removal did, and the question that decides it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Callable, Optional

from byos_run.model import Identity, Left

Verdict = Callable[[str, os.stat_result, Identity], Optional[Left]]
"""(path below the root, lstat, identity before we touched it) → why it stays, with all below; None: delete it."""

LISTED = 1000
"""How many deleted files are told by name."""


@dataclass
class Removed:
    """What a removal did, as it goes along."""

    files: int = 0
    directories: int = 0
    size_bytes: int = 0
    """Of plain files whose last name went."""
    paths: list[str] = field(default_factory=list)
    """The first thousand files that went."""
    left: list[Left] = field(default_factory=list)

    def count(self, path: str, status: os.stat_result) -> None:
        """One file went."""
        self.files += 1
        if len(self.paths) < LISTED:
            self.paths.append(path)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            self.size_bytes += status.st_size

    def then(self, later: Removed) -> None:
        """Add what a later look deleted. What is left is for the last look to say."""
        self.files += later.files
        self.directories += later.directories
        self.size_bytes += later.size_bytes
        self.paths += later.paths[: LISTED - len(self.paths)]
        self.left = later.left

    @property
    def nothing(self) -> bool:
        return not self.files and not self.directories


def spare_nothing(_path: str, _status: os.stat_result, _identity: Identity) -> Left | None:
    return None
