"""What the cloud says of the end of this node: a spot instance is taken back minutes or seconds after a notice.

    aws     PUT /latest/api/token, then GET /latest/meta-data/spot/instance-action: 404, or {"action", "time"}
    azure   GET /metadata/instance/compute/name, then /metadata/scheduledevents: events of this machine
    gcp     GET /computeMetadata/v1/instance/preempted: TRUE, and thirty seconds are left

One request a look. The address is the cloud's own, or what its own programs read instead: AWS_EC2_METADATA_SERVICE_ENDPOINT (AWS
CLI and SDKs), AZURE_POD_IDENTITY_AUTHORITY_HOST (Azure's SDKs), GCE_METADATA_HOST (Google's). No proxy is used: the address is
this node's. Times are counted by the ``Date`` of the answer, since the node's clock may be wrong.

Not promised: a notice. Containers often cannot reach the service; then the run is as it would be without.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 2.0
_AZURE_TIMEOUT_S = 10.0
"""Azure starts the service at the first question, which takes its time."""
_LONGEST_BYTES = 1 << 16
_USUAL_S = {"aws": 120.0, "azure": 30.0, "gcp": 30.0}
"""Between notice and end, where the notice does not say it."""
_ENDING = frozenset(["Preempt", "Terminate", "Reboot", "Redeploy"])
_NAMES = {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud"}


@dataclass(frozen=True)
class Notice:
    text: str
    """For people: who does what."""
    seconds_left: float


def cloud_of(environ: Mapping[str, str], *, dmi: Path = Path("/sys/class/dmi/id")) -> str:
    """``aws``, ``azure``, ``gcp`` as the platform or the machine's firmware says; "" for anything else."""
    told = environ.get("RESCALE_PROVIDER", "").lower()
    vendor, product, tag = (_text(dmi / name) for name in ("sys_vendor", "product_name", "chassis_asset_tag"))
    is_xen = vendor == "Xen" and "amazon" in product
    clouds = {
        "aws": "aws" in told or "amazon" in told or "Amazon EC2" in (vendor, product) or is_xen,
        "azure": "azure" in told or "microsoft" in told or tag == "7783-7084-3265-9085-8269-3286-77",
        "gcp": "gcp" in told or "google" in told or product == "Google Compute Engine",
    }
    return next((name for name, found in clouds.items() if found), "")


class Service:
    """The metadata service of one cloud; asked by one thread, every few seconds."""

    def __init__(self, cloud: str, *, environ: Mapping[str, str]) -> None:
        self._cloud = cloud
        self._base = _address(cloud, environ)
        self._key: str | None = None
        """AWS: the token; Azure: the name of this machine."""
        self.failures = 0
        """Looks in a row that the service did not answer."""

    def look(self) -> Notice | None:
        """One request. Does not raise."""
        ask = {"aws": self._aws, "azure": self._azure, "gcp": self._gcp}[self._cloud]
        try:
            found = ask()
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
            self.failures += 1
            return None
        self.failures = 0
        return found

    def _aws(self) -> Notice | None:
        if self._key is None:
            status, body, _ = self._ask("/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
            if status != 200:
                raise ValueError(status)
            self._key = body
            return None
        status, body, date = self._ask(
            "/latest/meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": self._key}
        )
        if status == 401:  # the token is too old
            self._key = None
        if status != 200:
            return None
        told = json.loads(body)
        until = datetime.strptime(told["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        return self._notice(f"will {told['action']} this instance", until, date)

    def _azure(self) -> Notice | None:
        given = {"Metadata": "true"}
        if self._key is None:
            status, body, _ = self._ask(
                "/metadata/instance/compute/name?api-version=2021-02-01&format=text", "GET", given
            )
            self._key = body if status == 200 else ""
            return None
        status, body, date = self._ask("/metadata/scheduledevents?api-version=2020-07-01", "GET", given)
        if status != 200:
            raise ValueError(status)
        for event in json.loads(body)["Events"]:
            if event["EventType"] in _ENDING and (not self._key or self._key in event.get("Resources", [])):
                until = parsedate_to_datetime(event["NotBefore"]) if event.get("NotBefore") else None
                return self._notice(f"has announced this machine's end ({event['EventType']})", until, date)
        return None

    def _gcp(self) -> Notice | None:
        status, body, date = self._ask("/computeMetadata/v1/instance/preempted", "GET", {"Metadata-Flavor": "Google"})
        if status != 200:
            raise ValueError(status)
        return self._notice("takes this instance back", None, date) if body.strip().upper() == "TRUE" else None

    def _notice(self, what: str, until: datetime | None, date: datetime) -> Notice:
        seconds = _USUAL_S[self._cloud] if until is None else (until - date).total_seconds()
        return Notice(f"{_NAMES[self._cloud]} {what}", max(0.0, seconds))

    def _ask(self, path: str, method: str, headers: Mapping[str, str]) -> tuple[int, str, datetime]:
        """Status, body and the service's time. Raises OSError, HTTPException."""
        parts = urlsplit(self._base)
        timeout_s = _AZURE_TIMEOUT_S if self._cloud == "azure" else _TIMEOUT_S
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
        try:
            connection.request(method, parts.path.rstrip("/") + path, headers=dict(headers))
            answer = connection.getresponse()
            text = answer.read(_LONGEST_BYTES).decode("utf-8", "replace")
            return answer.status, text, _time_of(answer.getheader("Date"))
        finally:
            connection.close()


def _address(cloud: str, environ: Mapping[str, str]) -> str:
    given = {
        "aws": environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        "azure": environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        "gcp": environ.get("GCE_METADATA_HOST"),
    }[cloud]
    usual = "metadata.google.internal" if cloud == "gcp" else "169.254.169.254"
    address = given or usual
    return address if "//" in address else f"http://{address}"


def _time_of(date: Any) -> datetime:
    try:
        return parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return datetime.now(timezone.utc)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
