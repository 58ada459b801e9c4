"""What AWS is to a client behind a company's proxy: CONNECT to any of its names ends here, in TLS, and every request is remembered.

It keeps nothing: a PUT is acknowledged by the checksum that it carries, a HEAD finds an empty object, a Complete is believed.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NamedTuple

from tests.faults import certificates, message

if TYPE_CHECKING:
    from pathlib import Path

UPLOAD = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"


class Asked(NamedTuple):
    """A request that has come."""

    host: str
    """That the proxy was told to connect to."""
    method: str
    target: str
    headers: dict[str, str]

    @property
    def region(self) -> str:
        """That it is signed for."""
        return self.headers["authorization"].split("/")[2]


class Said(NamedTuple):
    """An answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Amazon:
    """A context manager; `proxy` belongs into HTTPS_PROXY, `ca` into AWS_CA_BUNDLE."""

    def __init__(self, directory: Path, *names: str, answer: Callable[[Asked], Said | None] = lambda _: None) -> None:
        """`names`: hosts of the certificate, "*" for one label. `answer`: None for what anybody would say."""
        self.ca = str(certificates.lay_down(directory, *names))
        self.asked: list[Asked] = []
        self._answer = answer
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self.ca, str(directory / "private.key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.proxy = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Amazon:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            plain = client.makefile("rb", buffering=0)
            connect = message.read_head(plain)
            assert connect is not None
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with self._tls.wrap_socket(client, server_side=True) as tls:
                self._open.append(tls)
                while self._exchange(tls, tls.makefile("rb"), host=connect.first.split()[1].partition(":")[0]):
                    pass

    def _exchange(self, tls: ssl.SSLSocket, stream: object, *, host: str) -> bool:
        head = message.read_head(stream)  # type: ignore[arg-type]  # a BufferedReader is a BinaryIO but for its name
        if head is None:
            return False
        if head.headers.get("expect"):
            tls.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        for _ in message.body_of(stream, head):  # type: ignore[arg-type]
            pass
        method, target, _ = head.first.split(" ", 2)
        asked = Asked(host, method, target, head.headers)
        self.asked.append(asked)
        said = self._answer(asked) or usual(asked)
        lines = [f"HTTP/1.1 {said.status} Said", *(f"{name}: {value}" for name, value in said.headers)]
        length = f"Content-Length: {len(said.body)}"
        tls.sendall("\r\n".join([*lines, length, "", ""]).encode() + (b"" if method == "HEAD" else said.body))
        return True


def usual(asked: Asked) -> Said:
    """What a store that works would say."""
    if asked.method == "POST" and "uploads" in asked.target:
        return Said(body=UPLOAD)
    if asked.method == "POST":
        checksum = asked.headers["x-amz-checksum-crc32"]
        return Said(body=f"<R><ETag>e</ETag><ChecksumCRC32>{checksum}</ChecksumCRC32></R>".encode())
    checksum = asked.headers.get("x-amz-checksum-crc32", "")
    return Said(headers=(("etag", '"e"'), *((("x-amz-checksum-crc32", checksum),) if checksum else ())))
