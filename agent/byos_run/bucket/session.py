"""Who we are to the store, and the way to each bucket.

Credentials come as ``credentials`` finds them. The node's own role is left out unless asked for: on a rented node it may be
the platform's. With ``store.endpoint_url`` a bucket's address is plain; without, botocore finds it: one HEAD of the bucket
is sent through its client, whose final request says host, addressing and signing region after every redirect,
access-point ARN and dual-stack setting.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Callable
from urllib.parse import urlsplit

from byos_run import errors
from byos_run.bucket.answers import Transient
from byos_run.bucket.connections import Connections, Host
from byos_run.bucket.credentials import botocore_session, chained_source, plain_source
from byos_run.bucket.sign import Keys, Signer, masked
from byos_run.bucket.wire import Clock, Limits, Line, Throttle, Wire
from byos_run.errors import printable
from byos_run.model import Place, Stop, StoreSettings

_RENEW_EVERY_S = 20.0
_ASK_AGAIN_S = 1.0


class Session:
    """The credentials of a run and its wires, one for each bucket. Safe to use from many threads once it is made."""

    def __init__(self, *, settings: StoreSettings, place: Place, stop: Stop | None = None) -> None:
        """Raises AccessRefused without credentials, UsageError for a profile that is not there, StoreUnreachable, Stopped."""
        self._settings = settings
        self._place = place
        self._clock = Clock()
        self._throttle = Throttle(settings.max_bandwidth_bytes_per_s)
        self._lines: dict[str, Line] = {}
        self.tell: Callable[[str], object] = lambda _: None
        """Is told of each request that has to be tried again."""
        self._botocore: Any = None
        self._renewed_at: float | None = None
        self._renewing = threading.Lock()
        if not settings.instance_role:
            # Read by botocore's metadata fetcher, also for credential_source; the solver's environment was copied before.
            os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        self._refused: Keys | None = None
        self._last: Keys | None = None
        self._last_holds_until = 0.0
        self._first_credentials(stop)

    def _first_credentials(self, stop: Stop | None) -> None:
        """An outage of whoever gives them is waited out like one of the store."""
        until = time.monotonic() + self._settings.first_contact_s
        while True:
            try:
                with stop.heard_at_once() if stop else nullcontext():
                    self._read_credentials()
                return
            except Transient as error:
                if time.monotonic() >= until:
                    raise errors.StoreUnreachable(str(error)) from None
            if stop is None:
                time.sleep(_ASK_AGAIN_S)
            else:
                stop.wait(_ASK_AGAIN_S)
                stop.check()

    def _read_credentials(self) -> None:
        settings, place = self._settings, self._place
        # What only botocore knows: where a bucket is when no endpoint says it.
        source = plain_source(settings=settings, place=place) if settings.endpoint_url else None
        if source is None:
            self._botocore = botocore_session(settings=settings, place=place)
            source = chained_source(self._botocore, settings, place)
        self._source = source
        self._last = source.plain or source.first

    def keys(self) -> Keys:
        """The credentials as they are now; botocore renews those that can be renewed.

        It begins to minutes before they expire; if that fails, the old ones serve as long as the store takes them. Raises
        AccessRefused, Transient.
        """
        if self._last is not None and time.monotonic() < self._last_holds_until and self._last != self._refused:
            return self._last
        try:
            self._last = self._source.keys()
        except (Transient, errors.AccessRefused):
            if self._last is None or self._last == self._refused:
                raise
            self._last_holds_until = time.monotonic() + _RENEW_EVERY_S
        return self._last

    def renew(self, refused: Keys) -> bool:
        """Read files, processes and a new ``config`` again, at most every 20 s; True if there are other keys than *refused* now.

        Of several threads that are refused at once, one reads, and all go on with what it found.
        """
        with self._renewing:
            self._refused = refused
            if self.keys() != refused:
                return True
            if self._renewed_at is not None and time.monotonic() - self._renewed_at < _RENEW_EVERY_S:
                return False
            self._renewed_at = time.monotonic()
            try:
                self._read_credentials()
            except errors.ByosError:
                return False
            return self.keys() != refused

    @property
    def identity(self) -> str:
        """For the first line of the log: which key, from where."""
        keys = self.keys()
        origin = {
            "shared-credentials-file": "a credentials file",
            "config-file": "a config file",
            "env": "the environment",
        }
        method = self._source.method or "the credentials chain"
        via = f", role {self._settings.role_arn}" if self._settings.role_arn else ""
        return f"access key {masked(keys.access_key)} from {origin.get(method, method)}{via}"

    @property
    def warnings(self) -> list[str]:
        """What will go wrong later, said early."""
        found = []
        if self.keys().token and self._source.method in ("env", "shared-credentials-file", "config-file"):
            found.append(
                "these credentials hold a session token that cannot be renewed: it may expire before the outputs have left"
            )
        if self._settings.endpoint_url.startswith("http://") and self._settings.sign_payload == "auto":
            found.append("plain http: payloads are protected against corruption by CRC-32, not against tampering")
        return found

    def wire(self, bucket: str, *, stop: Stop) -> Wire:
        """The way to *bucket*. Raises StoreUnreachable, Stopped."""
        if bucket not in self._lines:
            with stop.heard_at_once():
                self._lines[bucket] = self._line(bucket)
        patience_s = self._settings.patience_s
        limits = Limits(self._settings.first_contact_s, patience_s, asked_patience_s=patience_s)
        return Wire(self._lines[bucket], stop=stop, limits=limits)

    def reached(self, bucket: str) -> StoreSettings:
        """The settings with endpoint and region as a machine without this one's AWS profiles has to be told them."""
        if self._settings.endpoint_url:
            return self._settings
        line = self._lines[bucket]
        host, path = line.connections.host, line.path_prefix.removesuffix(f"/{bucket}")
        name = host.header if path != line.path_prefix else host.header.removeprefix(f"{bucket}.")
        endpoint_url = "" if ".amazonaws.com" in host.name else f"{host.scheme}://{name}{path}"
        return replace(self._settings, endpoint_url=endpoint_url, region=self._settings.region or line.signer.region)

    def close(self) -> None:
        for line in self._lines.values():
            line.connections.close()

    def _line(self, bucket: str) -> Line:
        settings = self._settings
        if settings.endpoint_url and not bucket.startswith("arn:"):
            url, region = _plain_url(settings, bucket), settings.region or self._source.region or "us-east-1"
        else:
            url, region = _resolved_url(self._session(), settings, bucket)
        parts = urlsplit(url)
        tls = _tls_context(self._session(), settings) if parts.scheme == "https" else None
        host = Host(parts.scheme, parts.hostname or "", parts.port, proxy=_proxy_for(url), tls=tls)
        return Line(
            bucket=bucket,
            connections=Connections(host),
            path_prefix=parts.path.rstrip("/"),
            signer=Signer(region=region),
            keys=self.keys,
            renew=self.renew,
            clock=self._clock,
            throttle=self._throttle,
            sign_payload=settings.sign_payload == "always",
            fixed_headers=_fixed_headers(settings),
            write_headers=_write_headers(settings),
            tell=lambda text: self.tell(text),  # noqa: PLW0108 - as it is then: whoever listens comes later
        )

    def _session(self) -> Any:
        """botocore's, made when something is asked that only it knows."""
        if self._botocore is None:
            self._botocore = botocore_session(settings=self._settings, place=self._place)
            keys = self.keys()  # config may be gone by now
            self._botocore.set_credentials(keys.access_key, keys.secret_key, keys.token or None)
        return self._botocore


def _plain_url(settings: StoreSettings, bucket: str) -> str:
    base = settings.endpoint_url.rstrip("/")
    if settings.addressing != "virtual":
        return f"{base}/{bucket}"
    parts = urlsplit(base)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


def _resolved_url(session: Any, settings: StoreSettings, bucket: str) -> tuple[str, str]:
    """Where botocore sends a HEAD of *bucket* in the end: the URL of the bucket, and the region it signs for."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    style: Any = {} if settings.addressing == "auto" else {"addressing_style": settings.addressing}
    client = session.create_client(
        "s3", endpoint_url=settings.endpoint_url or None, verify=settings.ca_bundle or None,
        config=Config(s3=style, connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3}),
    )  # fmt: skip
    sent: list[Any] = []
    client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request))
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError:
        pass  # the address is known all the same; what is refused is said by the first real request
    except BotoCoreError as error:
        if not sent:
            raise errors.UsageError([f"bucket {bucket!r}: {printable(str(error))}"]) from None
    request = sent[-1]
    authorization = request.headers.get("Authorization", b"")
    text = authorization.decode() if isinstance(authorization, bytes) else str(authorization)
    scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3/", text)
    return str(request.url).partition("?")[0], scope.group(1) if scope else "us-east-1"


def _proxy_for(url: str) -> str:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from botocore.utils import get_environ_proxies

    proxies: Mapping[str, str] = get_environ_proxies(url)
    return proxies.get(urlsplit(url).scheme, "")


def _tls_context(session: Any, settings: StoreSettings) -> ssl.SSLContext:
    from botocore.httpsession import get_cert_path

    bundle = settings.ca_bundle or session.get_config_variable("ca_bundle") or get_cert_path(True)
    try:
        context = ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise errors.UsageError([f"store.ca_bundle: {bundle!r}: {error.strerror or error}"]) from None
    return context


def _fixed_headers(settings: StoreSettings) -> dict[str, str]:
    headers = {}
    if settings.request_payer:
        headers["x-amz-request-payer"] = "requester"
    if settings.expected_bucket_owner:
        headers["x-amz-expected-bucket-owner"] = settings.expected_bucket_owner
    return headers


def _write_headers(settings: StoreSettings) -> dict[str, str]:
    headers = {}
    if settings.sse:
        headers["x-amz-server-side-encryption"] = settings.sse
    if settings.kms_key_id:
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = settings.kms_key_id
    return headers
