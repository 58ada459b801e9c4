"""A cloud's metadata service on this machine: it answers as AWS, Azure or Google Cloud do, and gives notice when told to."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = {
    "aws": "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "azure": "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "gcp": "GCE_METADATA_HOST",
}


class Metadata:
    """What the service says; change it while it serves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ends_in_s: float | None = None
        """Seconds between an answer and the end of the machine that it tells of; None: all is well."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self.token = "token-1"
        self.azure_machine = "this-vm"

    def environ(self, cloud: str) -> dict[str, str]:
        """The variable by which the cloud's own programs, and we, find the service."""
        return {VARIABLES[cloud]: self.url.removeprefix("http://") if cloud == "gcp" else self.url}

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        plain = path.partition("?")[0]
        self.asked.append(f"{method} {plain}")
        if plain.startswith("/computeMetadata/"):
            if headers.get("Metadata-Flavor") != "Google":
                return 403, ""
            return 200, "FALSE" if self.ends_in_s is None else "TRUE"
        if plain.startswith("/metadata/"):
            return self._azure(plain, headers)
        if (method, plain) == ("PUT", "/latest/api/token") and headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return 200, self.token
        if headers.get("X-aws-ec2-metadata-token") != self.token:
            return 401, ""
        if self.ends_in_s is None:
            return 404, "not found"
        return 200, json.dumps({"action": "terminate", "time": f"{self._end():%Y-%m-%dT%H:%M:%SZ}"})

    def _azure(self, path: str, headers: Any) -> tuple[int, str]:
        if headers.get("Metadata") != "true":
            return 400, ""
        if path.endswith("/compute/name"):
            return 200, "this-vm"
        event = {"EventId": "1", "EventStatus": "Scheduled", "EventType": "Preempt", "ResourceType": "VirtualMachine"}
        when = "" if self.ends_in_s is None else f"{self._end():%a, %d %b %Y %H:%M:%S GMT}"
        events = [{**event, "Resources": [self.azure_machine], "NotBefore": when}] if when else []
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": events})

    def _end(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(seconds=self.ends_in_s or 0)


@contextmanager
def serving() -> Iterator[Metadata]:
    """The service on a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            status, text = told.answer(self.command, self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = handle_any  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Metadata(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
