"""A program beside others of ours, below a shim: it dies with us, and nothing of it outlives it.

For what looks after itself: a whole ``byos-run``, a store. It is started, asked whether it lives, sent a signal, ended. Whoever
must know each of its processes takes ``node.process`` instead, of which one may be at work at a time.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import TracebackType

from byos_run.errors import NodeUnfit
from byos_run.node.process import Program, begin, signal_group


class Child:
    """Started by its making, from the main thread; used with ``with``, or ended by :meth:`end`."""

    def __init__(self, *, program: Program, output: Path, library_path: str = "") -> None:
        """*output* is made anew and gets both outputs. Raises NodeUnfit."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            sink = os.open(output, flags, 0o644)
        except OSError as error:
            raise NodeUnfit(f'cannot write "{output}": {error.strerror}') from error
        # Without a mark: a byos-run below would take it for a variable of its own.
        self._shim, self._status, self._control = begin(
            program=program, output=sink, mark="", library_path=library_path
        )
        self._heard = b""
        self._leader = 0
        self.code: int | None = None
        """How it ended: its exit code, 128 + signal, 127 if it could not be executed; None while it lives."""

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def lives(self) -> bool:
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        while self.code is None and poll.poll(0):
            piece = os.read(self._status, 4096)
            self._heard += piece
            self._understand(is_over=not piece)
        return self.code is None

    def _understand(self, *, is_over: bool) -> None:
        for line in self._heard.split(b"\n")[:-1]:
            word, _, rest = line.partition(b" ")
            if word == b"started":
                self._leader = int(rest)
            elif word == b"ended":
                number = int(rest.split()[0])
                self.code = number if number >= 0 else 128 - number
            elif word == b"failed":
                self.code = 127
        if is_over and self.code is None:
            self.code = 128 + 9  # only a KILL silences the shim

    def signal(self, number: int) -> None:
        """To its process group, if it lives."""
        if self.lives and self._leader:
            signal_group(self._leader, number)

    def end(self) -> None:
        """TERM, a second, KILL to all that is left of it. Harmless when called again."""
        if self._control < 0:
            return
        os.close(self._control)
        self._control = -1
        self._shim.wait()
        self.lives  # noqa: B018 - asked for what the shim said last
        os.close(self._status)
