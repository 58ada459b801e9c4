"""What an endpoint lets these keys do below a prefix, and how well: tried with one small object that is gone afterwards.

    PUT with a checksum ▶ GET, compared ▶ PUT "only if absent" ▶ a multipart upload, begun and aborted ▶ listing ▶ DELETE

Each trial says what it found or raises; whoever calls decides what follows from it. Nothing else below the prefix is touched.
"""

from __future__ import annotations

import os
import time
import uuid
import xml.etree.ElementTree as ET
from email.utils import parsedate_to_datetime

from byos_run import crc, errors
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire

PROBE_BYTES = 4 << 20
_FAR_OFF_S = 300.0


class Probe:
    """One probe below *below*, a key's prefix. As a context manager: the object and the upload are gone at the end."""

    def __init__(self, wire: Wire, below: str) -> None:
        self._wire = wire
        self._below = below
        self._key = f"{below}_byos/probe-{uuid.uuid4().hex}"
        self._content = os.urandom(PROBE_BYTES)
        self._written = False
        self._upload_id = ""

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *failure: object) -> None:
        tidy = self._wire.until(patience_s=2.0)
        for over in (self._abort if self._upload_id else None, self._delete if self._written else None):
            try:
                if over is not None:
                    over(tidy)
            except errors.ByosError:
                continue  # the trial of just that has said so

    def write(self) -> str:
        """PUT. Raises AccessRefused, StoreUnreachable, StoreRefused."""
        started = time.monotonic()
        checksum = crc.base64_of(crc.crc32(self._content))
        headers = {**self._wire.line.write_headers, "x-amz-checksum-crc32": checksum}
        self._written = True  # perhaps: an answer can be lost
        answer = self._wire.request("PUT", self._key, headers=headers, body=self._content)
        rate = len(self._content) / max(time.monotonic() - started, 1e-3) / 1e6
        echoed = answer.headers.get("x-amz-checksum-crc32") == checksum
        how = "CRC-32 confirmed" if echoed else "no CRC-32 in the answer: the ETag, or reading back, proves outputs"
        return f"{rate:.0f} MB/s on one connection, {how}"

    def read(self) -> str:
        """GET, compared byte by byte."""
        found = objects.get(self._wire, self._key)
        if found is None or found.body != self._content:
            raise errors.StoreRefused("the store does not give back what was written a moment ago", status=200)
        return "what was written comes back"

    def condition(self) -> str:
        """PUT only if absent, where it is not: it must be refused."""
        try:
            objects.put(self._wire, self._key, b"second", if_none_match=True)
        except errors.ConditionFailed:
            return "two runs that start together are told apart"
        except errors.StoreRefused as error:
            return (
                f"not known to this store ({error.status}): two runs that start in the same second are not told apart"
            )
        return "ignored by this store: two runs that start in the same second are not told apart"

    def multipart(self) -> str:
        """An upload in parts, begun and given up."""
        key = f"{self._key}-parts"
        answer = self._wire.request("POST", key, query=[("uploads", "")], headers=dict(self._wire.line.write_headers))
        self._upload_id = ET.fromstring(answer.body).findtext("{*}UploadId") or ""  # noqa: S314 - the user's own store
        self._abort(self._wire)
        self._upload_id = ""
        return "uploads in parts can be begun and given up"

    def delete(self) -> str:
        self._delete(self._wire)
        self._written = False
        return "what is stale can be removed"

    def listing(self) -> str:
        """May the prefix be listed? Without it a run works, and notices less."""
        try:
            next(objects.listed(self._wire, f"{self._below}_byos/"), None)
        except errors.AccessRefused:
            return "refused, and not required: strangers' objects are not noticed, outputs are proved by one HEAD each"
        return "allowed"

    def clock(self) -> str:
        """How far this machine's clock is from the store's."""
        answer = self._wire.request("HEAD", self._key)
        told = answer.headers.get("date", "")
        if not told:
            return "the store does not tell its time"
        off_s = time.time() - parsedate_to_datetime(told).timestamp()
        note = ": requests are signed with the store's time" if abs(off_s) > _FAR_OFF_S else ""
        return f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the store's{note}"

    def _delete(self, wire: Wire) -> None:
        objects.delete(wire, self._key)

    def _abort(self, wire: Wire) -> None:
        wire.request("DELETE", f"{self._key}-parts", query=[("uploadId", self._upload_id)])
