"""What goes wrong, and when: small values.

    Rule(Refuse(503, "SlowDown"), method="PUT", key=r"\\.h5$", nth=(1, 2))     the first two PUTs of keys that end in .h5
    Rule(LoseAnswer(), method="POST", query="uploadId=")                      every Complete is carried out, no answer comes
    Rule(Cut(at_byte=1000), chance=0.1)                                       one answer in ten, by the proxy's seed

The first rule that applies to a request is the one that is carried out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Union


@dataclass(frozen=True)
class Refuse:
    """Answered by the proxy; the store never sees the request."""

    status: int = 503
    code: str = "SlowDown"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Reset:
    """The connection is reset: before anything reached the store, or when all of the request has, without its answer."""

    forwarded: bool = False


@dataclass(frozen=True)
class LoseAnswer:
    """The store carries the request out and answers; the connection is reset instead of passing the answer on."""


@dataclass(frozen=True)
class Stall:
    """Nothing happens for so long once the request has reached the store; then the answer comes."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection is reset after so many bytes of the answer's body."""

    at_byte: int


@dataclass(frozen=True)
class Corrupt:
    """One bit of a body is flipped: of the answer's, or of the request's."""

    at_byte: int
    request: bool = False


@dataclass(frozen=True)
class IgnoreRange:
    """200 with the whole object where a range was asked for."""


@dataclass(frozen=True)
class WrongRange:
    """Content-Range says that the bytes lie so much further on than they do."""

    shift: int = 1


@dataclass(frozen=True)
class Strip:
    """The answer comes without this header, and its body without the XML element that says the same."""

    header: str
    element: str = ""


@dataclass(frozen=True)
class Drip:
    """The answer's body comes this slowly."""

    bytes_per_s: float


@dataclass(frozen=True)
class Call:
    """`hook` is called, then all goes on: before the request is forwarded, or when so many bytes of the answer have gone.

    `when`: "" as above; "answered": the store has answered and the client does not know; "passed": the answer has just gone.
    """

    hook: Callable[[], object]
    at_byte: int = -1
    when: str = ""


Fault = Union[Refuse, Reset, LoseAnswer, Stall, Cut, Corrupt, IgnoreRange, WrongRange, Strip, Drip, Call]


@dataclass(frozen=True)
class Rule:
    """A fault, and the requests that it befalls: all that is given must hold."""

    fault: Fault
    method: str = ""
    key: str = ""
    """Regular expression, searched in the decoded `bucket/key`."""
    query: str = ""
    """Regular expression, searched in the query as it is sent."""
    header: str = ""
    """Regular expression, searched in each `name: value`, the name in lower case."""
    nth: tuple[int, ...] = ()
    """Which of the requests that match so far, counted from 1; empty: every one."""
    chance: float = 1.0

    def matches(self, *, method: str, key: str, query: str, headers: dict[str, str]) -> bool:
        return (
            self.method in ("", method)
            and re.search(self.key, key) is not None
            and re.search(self.query, query) is not None
            and (not self.header or any(re.search(self.header, f"{name}: {value}") for name, value in headers.items()))
        )


@dataclass(frozen=True)
class Link:
    """A network between client and store: one rate for each direction, shared by all connections, and a delay per request."""

    bits_per_s: float = 0.0
    """0: no limit."""
    latency_s: float = 0.0
