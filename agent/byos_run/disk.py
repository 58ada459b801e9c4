"""Whether the disk of the case will be full before the run is over, said in time.

Every few seconds the free space is looked at. It is said once when it falls so fast that nothing would be free before the known
end (an hour from now, where no end is known), and again each time half of the minutes that were told are gone. On the brink, two
minutes before nothing is left, publishing is told to go first.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

from byos_run import log
from byos_run.node.volumes import Filling, space

LOOK_S = 5.0
_HORIZON_S = 3600.0
_BRINK_S = 120.0
_SURE_S = 30.0
"""A burst that is shorter says nothing of the next hour."""


class Disk:
    """Looked at by one thread, asked from any."""

    def __init__(
        self,
        directory: Path,
        *,
        left_s: Callable[[], float | None],
        warn: Callable[[str], None],
        press: Callable[[bool], None] = lambda _: None,
        advice: str = "",
    ) -> None:
        """*left_s*: seconds until the run is to be over, if that is known. *press* hears when the brink is reached and left."""
        self._directory = directory
        self._left_s = left_s
        self._warn = warn
        self._press = press
        self._advice = advice
        self._filling = Filling()
        self._told_s = float("inf")
        self._presses = False
        self._free_bytes: int | None = None

    def look(self) -> None:
        """Does not raise."""
        try:
            self._free_bytes = space(self._directory).free_bytes
        except OSError:
            return
        self._filling.look(self._free_bytes, now_s=time.monotonic())
        full_in_s = self._filling.full_in_s
        on_the_brink = full_in_s is not None and full_in_s < _BRINK_S
        if on_the_brink != self._presses:
            self._presses = on_the_brink
            self._press(on_the_brink)
        if full_in_s is not None and (on_the_brink or self._filling.span_s >= _SURE_S):
            self._tell(full_in_s)

    def _tell(self, full_in_s: float) -> None:
        left_s = self._left_s()
        if full_in_s >= (_HORIZON_S if left_s is None else left_s) or full_in_s > self._told_s / 2:
            return
        self._told_s = full_in_s
        minutes = f"{full_in_s / 60:.0f} min" if full_in_s >= _BRINK_S else f"{full_in_s / 60:.1f} min"
        self._warn(
            f"at this rate the disk of the case is full in {minutes}: {log.size(self._free_bytes or 0)} free{self._advice}"
        )

    def standing(self) -> dict[str, Any]:
        """For ``status.json``."""
        full_in_s = self._filling.full_in_s
        return {
            "disk_free_bytes": self._free_bytes,
            "disk_full_in_s": None if full_in_s is None else round(full_in_s),
        }
