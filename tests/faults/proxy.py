"""The fault proxy: a loopback HTTP server in front of a real store, in threads of this process.

    accept -> per connection: request head -> first rule that applies -> forward -> answer head -> body -> next request

The request reaches the store as it was sent, Host included, since the signature covers it. One connection to the store
serves one from the client, so a reset on one side is felt on the other. Every request is remembered with what befell it;
`wait_for` lets a test await one instead of sleeping.

Not promised: https towards the store, pipelining, the order of chance when several connections draw at once.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Callable, NamedTuple
from urllib.parse import unquote, urlsplit

from tests.faults import message, rules
from tests.faults.effects import Pace, corrupted, refusal, shifted, stripped
from tests.faults.rules import Link, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.message import Head
    from tests.kit.stores import Store


class Request(NamedTuple):
    """A request that has come to the proxy."""

    method: str
    key: str
    """Decoded `bucket/key`."""
    query: str
    headers: dict[str, str]
    fault: rules.Fault | None


class Cutoff(Exception):
    """The connection to the client is to be reset now."""


class FaultProxy:
    """A context manager; `endpoint_url` is what the client is given instead of the store's."""

    def __init__(self, store: Store, *told: Rule, link: Link | None = None, seed: int = 0) -> None:
        self._store = store
        self._upstream = (urlsplit(store.endpoint_url).hostname or "", urlsplit(store.endpoint_url).port or 80)
        self._rules: list[Rule] = list(told)
        self._matched: dict[int, int] = {}
        self._random = random.Random(seed)
        self._seen: list[Request] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._pace = Pace(link or Link(), self._closing)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def tell(self, *told: Rule) -> None:
        """From now on these rules hold, and their counts begin anew; none: the proxy behaves."""
        with self._changed:
            self._rules = list(told)
            self._matched = {}

    @property
    def seen(self) -> list[Request]:
        """Every request so far, in the order in which they came."""
        with self._changed:
            return list(self._seen)

    def wait_for(self, wanted: Callable[[Sequence[Request]], object], *, timeout_s: float = 120.0) -> None:
        """Returns once `wanted(requests so far)` is true. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: wanted(self._seen), timeout_s):
                raise TimeoutError(f"not seen within {timeout_s} s among {len(self._seen)} requests")

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with ExitStack() as stack:
            stack.callback(_closed, client)
            try:
                upstream = stack.enter_context(socket.create_connection(self._upstream))
                for connection in (client, upstream):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    stack.enter_context(self._kept(connection))
                talk = Talk(client, upstream)
                stack.callback(talk.close)
                while not self._closing.is_set() and self._exchange(talk):
                    pass
            except Cutoff:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() then resets
            except OSError:
                return  # one of the two sides went away: so does the other

    def _kept(self, connection: socket.socket) -> Any:
        """Registers a connection, so that the end of the proxy ends what waits on it."""
        with self._changed:
            self._open.add(connection)
        stack = ExitStack()
        stack.callback(self._dropped, connection)
        return stack

    def _dropped(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)

    def _exchange(self, talk: Talk) -> bool:
        """One request and its answer. False when the connection is to be closed."""
        head = message.read_head(talk.from_client)
        if head is None:
            return False
        request = self._noted(head)
        fault = request.fault
        if head.headers.get("expect", "").lower() == "100-continue":
            talk.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = message.body_of(talk.from_client, head)
        if fault == rules.Reset(forwarded=False):
            raise Cutoff
        if isinstance(fault, rules.Refuse):
            for _ in body:
                pass
            talk.client.sendall(refusal(fault, method=request.method))
            return True
        if isinstance(fault, rules.Call) and fault.at_byte < 0 and not fault.when:
            fault.hook()
        self._pace.request()
        talk.upstream.sendall(head.encoded())
        for piece in corrupted(body, fault, request=True):
            self._pace.up(len(piece))
            talk.upstream.sendall(piece)
        if isinstance(fault, rules.Reset):
            raise Cutoff
        return self._answer(talk, request)

    def _answer(self, talk: Talk, request: Request) -> bool:
        head = message.read_head(talk.from_store)
        while head is not None and head.status < 200:
            head = message.read_head(talk.from_store)
        if head is None:
            return False
        fault = request.fault
        if isinstance(fault, rules.LoseAnswer):
            for _ in message.body_of(talk.from_store, head, answers=request.method):
                pass
            raise Cutoff
        self._before_answer(fault)
        body: Iterable[bytes] = message.body_of(talk.from_store, head, answers=request.method)
        if isinstance(fault, rules.IgnoreRange) and head.status == 206:
            for _ in body:
                pass
            head, body = self._whole(head, request)
        if isinstance(fault, rules.WrongRange) and head.status == 206:
            head = head.with_header("Content-Range", shifted(head.headers["content-range"], fault.shift))
        if isinstance(fault, rules.Strip):
            head, body = stripped(head, body, fault)
        talk.client.sendall(head.encoded())
        self._body(talk.client, body, fault)
        if isinstance(fault, rules.Call) and fault.when == "passed":
            fault.hook()
        return "close" not in (
            head.headers.get("connection", "").lower(),
            request.headers.get("connection", "").lower(),
        )

    def _before_answer(self, fault: rules.Fault | None) -> None:
        if isinstance(fault, rules.Stall):
            self._closing.wait(fault.seconds)
        if isinstance(fault, rules.Call) and fault.when == "answered":
            fault.hook()

    def _body(self, client: socket.socket, body: Iterable[bytes], fault: rules.Fault | None) -> None:
        sent = 0
        called = not isinstance(fault, rules.Call) or fault.at_byte < 0
        for piece in corrupted(body, fault, request=False):
            if isinstance(fault, rules.Cut) and sent + len(piece) >= fault.at_byte:
                client.sendall(piece[: fault.at_byte - sent])
                raise Cutoff
            if isinstance(fault, rules.Call) and not called and sent + len(piece) > fault.at_byte:
                called = True
                fault.hook()
            for part in self._pace.dripped(piece, fault):
                self._pace.down(len(part))
                client.sendall(part)
            sent += len(piece)

    def _whole(self, head: Head, request: Request) -> tuple[Head, list[bytes]]:
        bucket, _, key = request.key.partition("/")
        client = self._store.client()
        try:
            content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        finally:
            client.close()
        plain = head.with_header("Content-Range", None).with_header("Content-Length", str(len(content)))
        return plain._replace(first="HTTP/1.1 200 OK"), [content]

    def _noted(self, head: Head) -> Request:
        method, target, _ = head.first.split(" ", 2)
        path, _, query = target.partition("?")
        plain = Request(method, unquote(path).lstrip("/"), query, head.headers, None)
        with self._changed:
            request = plain._replace(fault=self._fault_for(plain))
            self._seen.append(request)
            self._changed.notify_all()
        return request

    def _fault_for(self, request: Request) -> rules.Fault | None:
        for index, rule in enumerate(self._rules):
            if rule.matches(method=request.method, key=request.key, query=request.query, headers=request.headers):
                self._matched[index] = count = self._matched.get(index, 0) + 1
                if (not rule.nth or count in rule.nth) and self._random.random() < rule.chance:
                    return rule.fault
        return None


class Talk:
    """The two connections of one client, with a reader on each."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client, self.upstream = client, upstream
        self.from_client, self.from_store = client.makefile("rb"), upstream.makefile("rb")

    def close(self) -> None:
        self.from_client.close()
        self.from_store.close()


def _closed(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.close()
