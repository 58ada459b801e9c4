"""One signed request to one bucket, and how long it is tried.

``attempt`` sends a request once; what comes of it is an :class:`Answer`, a definite error (``errors.StoreAnswer`` and its
kin), or :class:`Transient`: it may go well another time. ``request`` tries until patience ends. A caller that can
go on where a cut answer stopped, as ``ranges`` does, drives :class:`Trials` itself.

Retries are here and nowhere else: botocore's are not used, callers do not loop.

The clock: a request refused with RequestTimeTooSkewed carries the store's ``Date``; from then on we sign with the difference.
A connection that had served before and fails before an answer came is replaced once, at once, without counting.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Callable, Union, cast

from byos_run import errors
from byos_run.bucket.answers import Answer, Transient, error_of
from byos_run.bucket.connections import Connections, Host, Response
from byos_run.bucket.hearing import LAST_WORDS_S, TIMED_OUT, Heed
from byos_run.bucket.sign import EMPTY_SHA256, UNSIGNED, Keys, Signer, path_of, query_of
from byos_run.model import Stop

Body = Union[bytes, bytearray, memoryview]


@dataclass(frozen=True)
class Limits:
    """How long a request is tried, in seconds: until the store was reached for the first time, and in a later outage."""

    first_contact_s: float
    patience_s: float
    asked_patience_s: float = math.inf
    """The same once the wish to stop is there."""


class Clock:
    """The store's time, as far as it differs from the node's."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> float:
        return time.time() + self.offset_s

    def correct(self, date: str, *, signed_with_s: float) -> bool:
        """Take the store's ``Date``; True if that is more than a minute from the offset that the request was signed with.

        Not from the present offset: of several requests under way the first to be refused has moved that already.
        """
        try:
            self.offset_s = parsedate_to_datetime(date).timestamp() - time.time()
        except (TypeError, ValueError):
            return False
        return abs(self.offset_s - signed_with_s) > 60


class Throttle:
    """At most *bytes_per_s* over all threads; 0: no limit."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def take(self, count: int) -> float:
        """Seconds to wait before *count* bytes move."""
        if not self._bytes_per_s:
            return 0.0
        now = time.monotonic()
        # Two threads may read the same moment: then both go a little early, and the next one waits for both.
        self._free_at = max(self._free_at, now) + count / self._bytes_per_s
        return max(0.0, self._free_at - now - 0.05)

    def give_back(self, count: int) -> None:
        """*count* bytes are not waited for: neither does the record of a run that stops wait for them."""
        if self._bytes_per_s:
            self._free_at -= count / self._bytes_per_s


@dataclass(frozen=True)
class Line:
    """What all requests of one bucket share; one for each bucket, used by all threads."""

    bucket: str
    connections: Connections
    path_prefix: str
    """"/bucket" for path addressing, "" for virtual."""
    signer: Signer
    keys: Callable[[], Keys]
    renew: Callable[[Keys], bool]
    """Look for newer credentials than those; False if there are none."""
    clock: Clock
    throttle: Throttle
    sign_payload: bool
    fixed_headers: Mapping[str, str]
    """Sent with every request: requester pays, expected owner."""
    write_headers: Mapping[str, str]
    """Sent with every request that makes an object: encryption."""
    tell: Callable[[str], object] = lambda _: None
    """Is told of each request that has to be tried again, and why; from any thread."""


class Wire:
    """Requests to one bucket."""

    def __init__(self, line: Line, *, stop: Stop, limits: Limits, broken_by: Stop | None = None) -> None:
        """*stop* ends the trying; *broken_by*, else *stop* too, also what is under way and waits."""
        self.line = line
        self.stop = stop
        self.limits = limits
        self.broken_by = broken_by or stop

    @property
    def host(self) -> Host:
        return self.line.connections.host

    def until(
        self, *, stop: Stop | None = None, broken_by: Stop | None = None, patience_s: float | None = None
    ) -> Wire:
        """The same wire with another end to its patience."""
        limits = self.limits if patience_s is None else replace(self.limits, patience_s=patience_s)
        broken_by = broken_by or (self.broken_by if stop is None else None)
        return Wire(self.line, stop=stop or self.stop, limits=limits, broken_by=broken_by)

    def trials(self, what: str) -> Trials:
        return Trials(self, what)

    def request(
        self,
        method: str,
        key: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        into: memoryview | None = None,
    ) -> Answer:
        """Send until it is answered. Raises StoreAnswer and kin, AccessRefused, StoreUnreachable, Stopped."""
        trials = self.trials(f"{method} s3://{self.line.bucket}/{key}")
        while True:
            try:
                return self.attempt(method, key, query=query, headers=headers, body=body, into=into)
            except Transient as error:
                trials.failed(error)

    def attempt(
        self,
        method: str,
        key: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        into: memoryview | None = None,
        accept: Callable[[int, Mapping[str, str]], None] | None = None,
    ) -> Answer:
        """Send once. With *into*, the body of a 206 or 200 fills it exactly, or Transient says how far it came.

        *accept* sees status and headers of a success before its body is read, and may raise.
        """
        line, asked = self.line, self.stop.asked
        path = f"{line.path_prefix}/{path_of(key)}" if key or not line.path_prefix else line.path_prefix
        query_text = query_of(query)
        given = {**line.fixed_headers, **(headers or {})}
        keys, offset_s, region = line.keys(), line.clock.offset_s, line.signer.region
        signed = line.signer.headers(
            keys=keys, method=method, host=self.host.header, path=path, query=query_text, headers=given,
            payload_sha256=self._payload_sha256(method, body), now=line.clock.now(), region=region,
        )  # fmt: skip
        target = line.connections.target_of(f"{path}?{query_text}" if query_text else path)
        if len(body):
            self._pause_for(len(body), asked=asked)
        response, connection = self._send(method, target, {**signed, **line.connections.proxy_headers()}, body)
        if accept and response.status < 300:
            try:
                accept(response.status, _headers_of(response))
            except BaseException:
                connection.close()
                raise
        answer = self._receive(response, connection, into=into)
        line.connections.reached = True
        if into is not None and answer.status < 300:
            self._pause_for(len(into), asked=asked)
        if answer.status >= 300:
            if self._outdated(answer, keys=keys, offset_s=offset_s, region=region):
                raise Transient("the clock, the credentials or the region were put right; signing anew", answered=True)
            raise error_of(
                answer, method=method, bucket=line.bucket, key=key, query=query, address=self.host.address
            )  # fmt: skip
        return answer

    def _outdated(self, answer: Answer, *, keys: Keys, offset_s: float, region: str) -> bool:
        """Refused for what it was signed with, and there is better now."""
        if answer.blames_clock:
            return self.line.clock.correct(answer.headers.get("date", ""), signed_with_s=offset_s)
        if answer.status == 400 and answer.region not in ("", region):
            self.line.signer.region = answer.region
            return True
        return answer.blames_stale_keys and self.line.renew(keys)

    def _pause_for(self, count: int, *, asked: bool) -> None:
        """Raises Stopped when the wish to stop grew since the request began: a slow link must not hold up a deadline.

        *asked*: it was there before; what is begun after that is meant to be done still.
        """
        until = time.monotonic() + self.line.throttle.take(count)
        while (left_s := until - time.monotonic()) > 0:
            if (self.stop.asked and not asked) or (self.stop.wait(left_s) and self.stop.cut):
                self.line.throttle.give_back(count)
                self.stop.check()

    def _payload_sha256(self, method: str, body: Body) -> str:
        # What is posted is a list of parts: it has no checksum of its own, as objects have.
        if not self.line.sign_payload and method != "POST":
            return UNSIGNED
        return hashlib.sha256(body).hexdigest() if len(body) else EMPTY_SHA256

    def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> tuple[Response, http.client.HTTPConnection]:
        heed = Heed(self.broken_by)
        while True:
            connection, served_before = self._connect(heed)
            try:
                return _exchange(connection, method, target, headers, body), connection
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # What a POST does may be done already, and its answer lost: its caller decides.
                if not served_before or method == "POST" or isinstance(error, TIMED_OUT):
                    raise Transient(f"{self.host.address}: {_reason(error)}") from error

    def _connect(self, heed: Heed) -> tuple[http.client.HTTPConnection, bool]:
        try:
            return self.line.connections.take(heed)
        except ssl.SSLCertVerificationError as error:
            raise errors.StoreUnreachable(
                f"the certificate of {self.host.address} is not trusted: {error.verify_message}",
                hint="name the CA's file in store.ca_bundle, or in AWS_CA_BUNDLE",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"{self.host.address}: {_reason(error)}") from error

    def _receive(
        self,
        response: Response,
        connection: http.client.HTTPConnection,
        *,
        into: memoryview | None,
    ) -> Answer:
        received, body, broken = 0, b"", None
        try:
            if into is not None and response.status < 300:
                received, broken = response.fill(into)
                if received == len(into):
                    response.read(
                        1
                    )  # an empty read lets http.client see the end, so that the connection can serve again
                whole = received == len(into)
            else:
                body, whole = response.read(), True
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Transient(f"{self.host.address}: {_reason(error)}", received=received) from error
        if not whole:
            connection.close()
            reason = _reason(broken) if broken else "the answer was cut"
            raise Transient(f"{self.host.address}: {reason}", received=received, answered=True) from broken
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self.line.connections.give_back(connection)
        return Answer(response.status, _headers_of(response), body)


class Trials:
    """How long one request is tried, and how long it waits between."""

    _FIRST_WAIT_S = 0.1
    _LONGEST_WAIT_S = 10.0

    def __init__(self, wire: Wire, what: str) -> None:
        self._wire = wire
        self._what = what
        self._since: float | None = None
        self._wait_s = self._FIRST_WAIT_S
        self._begun_asked = wire.stop.asked

    def progressed(self) -> None:
        """Bytes have arrived since: the outage, if there was one, is over."""
        self._since = None
        self._wait_s = self._FIRST_WAIT_S

    def failed(self, error: Transient) -> None:
        """Wait for the next try. Raises StoreUnreachable when patience has ended, Stopped when the wish to stop grew."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        contacted = self._wire.line.connections.reached or error.answered
        limits = self._wire.limits
        patience_s = min(limits.patience_s, limits.asked_patience_s if self._wire.stop.asked else math.inf)
        limit_s = patience_s if contacted else limits.first_contact_s
        last_words = self._begun_asked and self._wire.broken_by is self._wire.stop
        if last_words and now - self._since >= LAST_WORDS_S:
            self._wire.stop.check()
        left_s = self._since + limit_s - now
        if left_s <= 0:
            raise errors.StoreUnreachable(
                f"{self._what} failed for {limit_s:.0f} s: {error}",
                hint="is store.endpoint_url right, and can this node reach it?" if not contacted else "",
            ) from error
        wait_s = min(self._wait_s * random.uniform(0.5, 1.5), left_s)  # noqa: S311 - jitter, not a secret
        self._wait_s = min(self._wait_s * 2, self._LONGEST_WAIT_S)
        self._wire.line.tell(f"{self._what}: {error}; trying again in {wait_s:.1f} s")
        # Asked since the first try, perhaps while one was under way; what is begun after that is meant to be done still.
        wish = self._wire.broken_by if self._begun_asked else self._wire.stop
        if (self._wire.stop.asked and not self._begun_asked) or wish.wait(wait_s):
            self._wire.stop.check()


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: Body
) -> Response:
    # A store that refuses early answers and closes while we still send: the answer says more than the broken pipe.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(
            method, target, body=body if len(body) or method in ("PUT", "POST") else None, headers=headers
        )
    return cast(Response, connection.getresponse())


def _headers_of(response: Response) -> dict[str, str]:
    return dict(response.getheaders())


def _reason(error: BaseException) -> str:
    if isinstance(error, TIMED_OUT):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
