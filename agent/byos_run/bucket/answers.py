"""What a store answered, and what that means: an :class:`Answer`, a definite error, or :class:`Transient`.

Codes and their statuses differ from store to store: an unknown key id comes as 403 or 404, a bad token as 400 or 403, and a
HEAD has no body to give a code. Known are those of AWS, MinIO, SeaweedFS and Versity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from byos_run import errors
from byos_run.errors import printable

_TRY_AGAIN_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_TRY_AGAIN_CODES = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "BadDigest", "XAmzContentChecksumMismatch",
     "XAmzContentSHA256Mismatch", "IncompleteBody", "OperationAborted", "ServerBusy", "TooManyRequests"}
)  # fmt: skip
_CREDENTIAL_CODES = frozenset(
    {"XAdminUserNotFound", "InvalidToken", "ExpiredToken", "InvalidAccessKeyId", "InvalidTokenId", "TokenRefreshRequired",
     "ExpiredTokenException", "AuthorizationHeaderMalformed", "InvalidSecurity", "NotSignedUp"}
)  # fmt: skip
_STALE_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidTokenId"}
)
_HINTS = {
    "RequestTimeTooSkewed": "the node's clock is wrong; set it, or ask the platform to",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key id",
    "InvalidAccessKeyId": "the store does not know this access key id",
    "XAdminUserNotFound": "the store does not know this access key id",
    "ExpiredToken": "the session token has expired",
}


class Transient(Exception):
    """It may go well another time; *received* bytes of the answer had arrived."""

    def __init__(self, message: str, *, received: int = 0, answered: bool = False, error_code: str = "") -> None:
        super().__init__(message)
        self.received = received
        self.answered = answered
        """The store answered: it is reachable, only not willing."""
        self.error_code = error_code


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def error_code(self) -> str:
        """``NoSuchKey`` and its like; "" where the store gives none."""
        return self._element("Code") or self.headers.get("x-minio-error-code", "")

    @property
    def text(self) -> str:
        """The store's own words, not made printable."""
        return self._element("Message") or self.headers.get("x-minio-error-desc", "").strip('"')

    @property
    def region(self) -> str:
        """Which one the store says that the bucket is in; a HEAD has no body to say it."""
        told = self.headers.get("x-amz-bucket-region", "") or self._element("Region")
        return told if re.fullmatch(r"[a-z0-9-]{1,40}", told) else ""

    @property
    def blames_clock(self) -> bool:
        """Perhaps: a HEAD does not say why it is refused."""
        return self.error_code == "RequestTimeTooSkewed" or (self.status == 403 and not self.body)

    @property
    def blames_stale_keys(self) -> bool:
        return self.error_code in _STALE_CODES

    def _element(self, name: str) -> str:
        found = re.search(rb"<" + name.encode() + rb">([^<]{0,500})</", self.body[:65536])
        if not found:
            return ""
        from html import unescape  # an XML library's knows no &#34;

        return unescape(found.group(1).decode("utf-8", "replace"))


def error_of(
    answer: Answer, *, method: str, bucket: str, key: str, query: Sequence[tuple[str, str]], address: str
) -> Exception:
    """What is to be raised for an *answer* of status 300 or more. *address*: of the store, for messages."""
    code, status = answer.error_code, answer.status
    where = f"s3://{bucket}/{printable(key)}"
    said = f"{status} {code}".strip()
    told = printable(answer.text)[:200]
    if code in _CREDENTIAL_CODES or status in (401, 403):
        message = f"{action_of(method, query, key=key)} on {where} refused: {said}"
        return errors.AccessRefused(message, hint=_HINTS.get(code, told), status=status, error_code=code)
    if status == 404:
        missing = f"bucket {bucket!r}" if code == "NoSuchBucket" else where
        return errors.NoSuchObject(f"{missing} does not exist", status=404, error_code=code or "NoSuchKey")
    if status == 412 or (status == 409 and code == "ConditionalRequestConflict"):
        return errors.ConditionFailed(f"{where} was changed by another", status=status, error_code=code)
    if status in _TRY_AGAIN_STATUS or code in _TRY_AGAIN_CODES:
        return Transient(f"{address}: {said}", answered=True, error_code=code)
    if status in (301, 307):
        return errors.StoreRefused(
            f"bucket {bucket!r} is not at {address}: {said}", status=status, error_code=code,
            hint=f"it lies in region {answer.region or '?'!r}; on AWS leave store.endpoint_url empty",
        )  # fmt: skip
    return errors.StoreRefused(f"{method} {where} refused: {said} {told}".rstrip(), status=status, error_code=code)


def action_of(method: str, query: Sequence[tuple[str, str]], *, key: str = "x") -> str:
    """The IAM action that a request needs."""
    names = {name for name, _ in query}
    if not key:
        return "s3:ListBucket"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in names else "s3:DeleteObject"
    return "s3:PutObject" if method in ("PUT", "POST") else "s3:GetObject"
