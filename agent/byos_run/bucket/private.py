"""A private store on this machine, for a rehearsal: what must be known to start one, and what it needs before use."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field

from byos_run import errors
from byos_run.bucket.wire import Wire

PROFILE = "rehearsal"
"""Named, so that no keys of the environment come first."""


@dataclass(frozen=True)
class Private:
    """Address and keys of a store that is to be started."""

    port: int
    console_port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of MinIO, but for its directory."""
        addresses = ("--address", f"127.0.0.1:{self.port}", "--console-address", f"127.0.0.1:{self.console_port}")
        return ("server", "--quiet", *addresses)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key, "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }  # fmt: skip

    def config(self, *profiles: str) -> str:
        """The text of a ``config`` with its keys, for *profiles* too."""
        keys = f"aws_access_key_id = {self.access_key}\naws_secret_access_key = {self.secret_key}\nregion = us-east-1\n"
        return "".join(f"[{section}]\n{keys}" for section in dict.fromkeys(("default", PROFILE, *profiles)) if section)


def new_private() -> Private:
    """Ports that are free now, keys that nobody knows."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(2)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        port, console = (listener.getsockname()[1] for listener in listeners)
    return Private(port, console, f"REHEARSAL{secrets.token_hex(5).upper()}", secrets.token_urlsafe(30))


def listens(private: Private) -> bool:
    try:
        socket.create_connection(("127.0.0.1", private.port), timeout=1).close()
    except OSError:
        return False
    return True


def make_bucket(wire: Wire) -> None:
    """Only ever in a private store: in the user's own no bucket is made."""
    try:
        wire.request("PUT", "")
    except errors.StoreAnswer as error:
        if error.error_code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
