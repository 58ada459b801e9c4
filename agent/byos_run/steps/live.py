"""How growing files end, for whoever has only the bucket: the last MiB of each below ``_byos/live/``, never the whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.model import Identity, Output, S3Url


class Live:
    """One thread calls it."""

    _SHOWN_BYTES = 1 << 20

    def __init__(self, wire: Wire, *, prefix: S3Url, opened: Callable[[Output], tuple[int, Identity]]) -> None:
        self._wire = wire
        self._prefix = prefix
        self._opened = opened
        self._shown: dict[str, Identity] = {}

    def show(self, outputs: Iterable[Output]) -> None:
        """Does not raise: what could not be shown is tried at the next turn."""
        for output in outputs:
            try:
                descriptor, identity = self._opened(output)
            except OSError:
                continue
            try:
                if self._shown.get(output.path) != identity:
                    start = max(0, identity.size_bytes - self._SHOWN_BYTES)
                    tail = os.pread(descriptor, self._SHOWN_BYTES, start)
                    objects.put(
                        self._wire,
                        f"{self._prefix.key}_byos/live/{output.key_path if output.escaped else output.path}",
                        tail,
                        content_type="text/plain",
                    )
                    self._shown[output.path] = identity
            except (errors.ByosError, OSError):
                continue
            finally:
                os.close(descriptor)
