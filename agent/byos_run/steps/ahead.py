"""Large files travel before they have settled: their parts leave, and an object is made of them only when the file has.

::

    begin    a file that is closed and was the same at two looks: parts leave, then the sender waits for the verdict
    settled  it is what it was: the object is completed and acknowledged        changed: the upload is aborted
    over     the solver has ended, so nobody writes any more: each is completed, if it is what it was

So that what a solver writes in its last seconds need not be sent when it has ended. A file that changed once after it had
begun is not sent ahead again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from typing import Callable, NamedTuple

from byos_run.bucket.upload import SINGLE_BYTES, FileChanged
from byos_run.model import Identity, Output, Published, Unpublished

AT_ONCE = 4


class Verdict:
    """Whether a file has settled; waited for by its sender, given once."""

    def __init__(self) -> None:
        self._heard = threading.Event()
        self._settled = False
        self.waited_s = 0.0

    def give(self, *, settled: bool) -> None:
        self._settled = settled
        self._heard.set()

    def wait(self) -> None:
        """Raises FileChanged if it has not."""
        since_s = time.monotonic()
        self._heard.wait()
        self.waited_s += time.monotonic() - since_s
        if not self._settled:
            raise FileChanged("it changed before it had settled")


class _Begun(NamedTuple):
    identity: Identity
    verdict: Verdict
    future: Future[list[Published | Unpublished]]


class Ahead:
    """What is under way. One thread calls it; :meth:`over` must be called in the end."""

    def __init__(self, begin: Callable[[Output, Verdict], Future[list[Published | Unpublished]]]) -> None:
        self._begin = begin
        self._begun: dict[str, _Begun] = {}
        self._unsteady: set[str] = set()

    def takes(self, output: Output) -> bool:
        """Whether *output* is worth it, and there is room for one more."""
        return (
            not output.stored
            and output.identity.size_bytes > SINGLE_BYTES
            and output.path not in self._begun
            and output.path not in self._unsteady
            and len(self._begun) < AT_ONCE
        )

    def begin(self, output: Output) -> None:
        verdict = Verdict()
        self._begun[output.path] = _Begun(output.identity, verdict, self._begin(output, verdict))

    def drop_changed(self, outputs: Sequence[Output]) -> None:
        """What is not as it was when it began will not become an object."""
        if not self._begun:
            return
        now = {output.path: output.identity for output in outputs if output.path in self._begun}
        for path in [path for path, begun in self._begun.items() if now.get(path) != begun.identity]:
            self._unsteady.add(path)
            self._begun.pop(path).verdict.give(settled=False)

    def settled(self, paths: Collection[str]) -> Iterator[Published]:
        """Complete those of *paths* that are under way; yields what was acknowledged."""
        begun = [self._begun.pop(path) for path in paths if path in self._begun]
        for each in begun:
            each.verdict.give(settled=True)
        for each in begun:
            yield from (item for item in each.future.result() if isinstance(item, Published))

    def over(self) -> Iterator[Published]:
        """No process of the run lives: whatever is under way has settled, if it is what it was."""
        return self.settled(list(self._begun))
