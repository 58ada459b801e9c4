"""Keep-alive HTTP/1.1 connections to one host, over the standard library's client.

``http.client`` and not urllib3: its ``readinto`` fills our own buffer without a copy, which is what limits ranged reads in Python.
A connection is used by one thread at a time; idle ones wait in a stack and are dropped after 20 s (MinIO closes at 30 s).
TLS, HTTP(S)_PROXY and NO_PROXY are honoured as botocore would. TCP_NODELAY is set by ``http.client`` itself.
"""

from __future__ import annotations

import base64
import http.client
import io
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from byos_run.bucket.hearing import Hearing, HearingTls, Heed, connected

CONNECT_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 30.0
_PORTS = {"http": 80, "https": 443}
_KEEP_IDLE_S = 20.0
_RECEIVE_BYTES = 1 << 20
_MOST_FIELDS, _LONGEST_LINE = 200, 65536


@dataclass(frozen=True)
class Host:
    """Where requests go: ``https://s3.eu-central-1.amazonaws.com``, perhaps by a proxy."""

    scheme: str
    name: str
    port: int | None = None
    proxy: str = ""
    tls: ssl.SSLContext | None = None
    idle_timeout_s: float = IDLE_TIMEOUT_S
    """How long no byte may move before a connection counts as dead."""

    @property
    def header(self) -> str:
        """The ``Host`` header, which is signed: no port when it is the scheme's own."""
        bare = f"[{self.name}]" if ":" in self.name else self.name
        return bare if self.port in (None, _PORTS[self.scheme]) else f"{bare}:{self.port}"

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.name}:{self.port or _PORTS[self.scheme]}"


class Response(http.client.HTTPResponse):
    """An answer whose head is read without ``email``'s parser: that took a third of the processor time of a small request.

    A head that is cut short is an error here; to ``http.client`` it is the end of the head.
    """

    def __init__(self, sock: Hearing, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._sock = sock

    def begin(self) -> None:
        """Raises OSError, HTTPException."""
        status = 100
        while status == 100:  # Continue: the answer is still to come
            version, status, reason = self._read_status()  # type: ignore[attr-defined]  # the same in 3.9 to 3.14
            fields = _fields(self.fp)
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version == "HTTP/1.0" else 11
        self.headers = self.msg = cast("http.client.HTTPMessage", fields)
        self.chunked = fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = fields.get("content-length", "")
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or self._method == "HEAD":  # type: ignore[attr-defined]  # likewise
            self.length = 0
        asked = fields.get("connection", "").lower()
        closes = "close" in asked or (self.version == 10 and "keep-alive" not in asked)
        self.will_close = closes or (self.length is None and not self.chunked)

    def fill(self, buffer: memoryview) -> tuple[int, Exception | None]:
        """The body into *buffer*: how many bytes came, and what broke it off; too few of them: the body was cut.

        A failure is returned, not raised: the bytes before it are good, and are not to be fetched again.
        """
        filled = 0
        try:
            if self.length is None or min(self.length, len(buffer)) <= io.DEFAULT_BUFFER_SIZE:
                while filled < len(buffer) and (count := self.readinto(buffer[filled : filled + _RECEIVE_BYTES])):
                    filled += count
                return filled, None
            wanted = buffer[: self.length]
            filled = self.fp.readinto1(wanted)  # what came with the head; one as large as this leaves nothing behind
        except (OSError, http.client.HTTPException) as error:
            return filled, error
        more, broken = self._sock.fill(wanted[filled:])
        self.length -= filled + more
        return filled + more, broken


def _fields(head: io.BufferedIOBase) -> dict[str, str]:
    """Lower-case name → value, up to the blank line."""
    fields: dict[str, str] = {}
    name = ""
    for _ in range(_MOST_FIELDS):
        line = head.readline(_LONGEST_LINE + 1)
        if not line.endswith(b"\n"):
            raise http.client.HTTPException(
                "the head of the answer was cut" if len(line) <= _LONGEST_LINE else "a header is too long"
            )
        text = line.decode("iso-8859-1").rstrip("\r\n")
        if not text:
            return fields
        if text[0] in " \t" and name:  # a value that goes on in the next line, as RFC 9112 still lets one be read
            fields[name] = f"{fields[name]} {text.strip()}"
            continue
        name, _, value = text.partition(":")
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    raise http.client.HTTPException(f"more than {_MOST_FIELDS} headers")


class Connections:
    """The open connections to one *host*."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.reached = False
        """An answer has come over one of them."""
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()

    def take(self, heed: Heed) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it has served before: then its peer may have closed it meanwhile."""
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < _KEEP_IDLE_S:
                cast(Hearing, connection.sock).serve(heed, idle_s=self.host.idle_timeout_s)
                return connection, True
            connection.close()
        return self._connect(heed), False

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Only after its answer was read to the end."""
        self._idle.append((time.monotonic(), connection))

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def target_of(self, path: str) -> str:
        """The request line's target: absolute when a proxy forwards plain http."""
        if self.host.proxy and self.host.scheme == "http":
            return f"http://{self.host.header}{path}"
        return path

    def proxy_headers(self) -> dict[str, str]:
        """What a forwarding proxy wants to see; not signed."""
        return _authorization(self.host.proxy) if self.host.proxy and self.host.scheme == "http" else {}

    def _connect(self, heed: Heed) -> http.client.HTTPConnection:
        host = self.host
        proxy = urlsplit(host.proxy) if host.proxy else None
        name, port = (
            (proxy.hostname or "", proxy.port or 80) if proxy else (host.name, host.port or _PORTS[host.scheme])
        )
        connection = http.client.HTTPConnection(name, port)
        connection.auto_open = 0
        connection.response_class = Response
        if host.tls and proxy:
            connection.set_tunnel(host.name, host.port or _PORTS["https"], headers=_authorization(host.proxy))
        connection._create_connection = lambda address, *_: connected(address, heed, idle_s=CONNECT_TIMEOUT_S)  # type: ignore[attr-defined]  # the same in 3.9 to 3.14
        try:
            connection.connect()
            sock = cast(Hearing, connection.sock)
            if host.tls:
                host.tls.sslsocket_class = HearingTls
                connection.sock = sock = cast(
                    Hearing, host.tls.wrap_socket(sock, server_hostname=host.name, do_handshake_on_connect=False)
                )
                sock.serve(heed, idle_s=CONNECT_TIMEOUT_S)
                cast(HearingTls, sock).do_handshake()
        except BaseException:
            connection.close()
            raise
        sock.serve(heed, idle_s=host.idle_timeout_s)
        return connection


def _authorization(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}
