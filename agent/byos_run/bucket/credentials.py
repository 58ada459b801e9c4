"""Which keys, and from where: botocore's usual chain, ``config`` of the run directory being its file when it holds AWS settings.

Most runs have plain keys, in ``config`` or in the environment. Where nothing else that the chain looks at is given, its answer is
known without it, and importing botocore is 0.1 s of every start: :func:`plain_source` gives that answer. Anything else goes
through botocore. Both say the same, which the tests hold.
"""

from __future__ import annotations

import configparser
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byos_run import errors
from byos_run.bucket.answers import Transient
from byos_run.bucket.sign import Keys
from byos_run.errors import printable
from byos_run.model import Place, StoreSettings

_LONGEST_CONFIG = 1 << 20
_OF_THE_CHAIN = (OSError, ValueError, KeyError)
"""What botocore lets through of files that are not there, and of programs and services that answer no JSON."""
_BUSY = (
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "IDPCommunicationError",
)
_AWS_SETTINGS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "role_arn",
    "sso_start_url",
    "sso_session",
    "credential_process",
    "web_identity_token_file",
)
_FILE_VARIABLES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
_PLAIN_VARIABLES = frozenset((
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED", "AWS_PAGER",
))  # fmt: skip
_PLAIN_SETTINGS = frozenset(("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "output"))


@dataclass(frozen=True)
class Source:
    """Where the keys come from, and what the same settings say of the region."""

    method: str
    """As botocore calls it: "env", "shared-credentials-file", "assume-role", …"""
    plain: Keys | None
    """The keys, if they are plain ones; else *renewable* has them."""
    region: str
    renewable: Any = None
    """botocore's credentials, renewed by it."""
    first: Keys | None = None
    """What those were when they were read."""

    def keys(self) -> Keys:
        """As they are now. Raises AccessRefused, Transient if they cannot be renewed at the moment."""
        return self.plain or _keys_of(self.renewable)


def config_file_of(place: Place) -> Path | None:
    """``config`` in the run directory, or in the one that the rows of a table share, if it holds AWS settings.

    Raises UsageError if it does and cannot be understood.
    """
    here = (place.run_directory, place.start_directory or place.run_directory)
    path = next((path for path in (d / "config" for d in here) if _holds_settings(_text_of(path))), None)
    if path is None:
        return None
    text = _text_of(path)
    try:
        configparser.RawConfigParser(strict=False).read_string(text)
    except configparser.MissingSectionHeaderError:
        raise errors.UsageError(["config: keys without a profile"], hint="put [default] above them") from None
    except configparser.Error as error:
        raise errors.UsageError([f"config: {printable(str(error).splitlines()[0])}"]) from None
    return path


def secret_files(place: Place) -> list[Path]:
    """Files of the credentials chain inside the run directory: gone from the platform as soon as they are read.

    What lies beside a row's directory is not among them: the other rows need it.
    """
    named = (place.environ.get(name) for name in _FILE_VARIABLES)
    candidates = [place.run_directory / name for name in named if name]
    candidates.append(place.run_directory / "config")
    real = Path(os.path.realpath(place.run_directory))
    inside = [path for path in candidates if real in Path(os.path.realpath(path)).parents and path.is_file()]
    secret = [path for path in inside if path.name != "config" or _holds_settings(_text_of(path))]
    # Of a link also what it leads to: the secret is there.
    names = [Path(os.path.realpath(path.parent), path.name) for path in secret]
    found = dict.fromkeys([*names, *(Path(os.path.realpath(path)) for path in secret)])
    return [place.run_directory / path.relative_to(real) for path in found if real in path.parents]


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes()[:_LONGEST_CONFIG].decode("utf-8-sig", "replace") if path.is_file() else ""
    except OSError:
        return ""


def _holds_settings(text: str) -> bool:
    return any(setting in text.lower() for setting in _AWS_SETTINGS)


def plain_source(*, settings: StoreSettings, place: Place) -> Source | None:
    """Plain keys that botocore's chain would come to as well; None where only it can tell. Raises UsageError."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if settings.role_arn or settings.profile or not _PLAIN_VARIABLES.issuperset(environ):
        return None
    region = environ.get("AWS_DEFAULT_REGION", "")
    if "AWS_ACCESS_KEY_ID" in environ:
        return _plain("env", {name.lower(): value for name, value in environ.items()}, region=region)
    config = config_file_of(place)
    if config is None:
        return None
    parsed = configparser.RawConfigParser(default_section="", strict=False)
    parsed.read_string(_text_of(config))
    if parsed.sections() != ["default"]:
        return None
    found = dict(parsed["default"])
    if not _PLAIN_SETTINGS.issuperset(found) or any("\n" in value for value in found.values()):
        return None
    return _plain("shared-credentials-file", found, region=region or found.get("region", ""))


def _plain(method: str, found: Mapping[str, str], *, region: str) -> Source | None:
    access_key, secret_key = found.get("aws_access_key_id", ""), found.get("aws_secret_access_key", "")
    if not access_key or not secret_key:
        return None
    return Source(method, _sendable(Keys(access_key, secret_key, found.get("aws_session_token", ""))), region)


def _sendable(keys: Keys) -> Keys:
    """Key id and token travel in headers; what no header can hold would be an outage to whoever sends it."""
    if not all(text.isascii() and text.isprintable() for text in (keys.access_key, keys.token)):
        raise errors.AccessRefused(
            "the access key or the session token holds a character that no key has", hint="copy it once more, as it is"
        )
    return keys


def chained_source(session: Any, settings: StoreSettings, place: Place) -> Source:
    """What the chain of botocore's *session* comes to. Raises AccessRefused without credentials, Transient in an outage."""
    credentials = _credentials(session, settings)
    if credentials is None:
        raise _no_credentials(place)
    first = _keys_of(credentials)  # roles are assumed and files read now: config may be deleted after this
    method = str(getattr(credentials, "method", "") or "")
    return Source(method, None, str(session.get_config_variable("region") or ""), credentials, first)


def botocore_session(*, settings: StoreSettings, place: Place) -> Any:
    import botocore.exceptions
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session(profile=settings.profile or None)
    # Of STS and its like; how long an outage is waited out is the wire's to say.
    session.set_default_client_config(Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}))
    config = config_file_of(place)
    if config and not place.environ.get("AWS_CONFIG_FILE"):
        session.set_config_variable("config_file", str(config))
        if not place.environ.get("AWS_SHARED_CREDENTIALS_FILE"):
            # Both kinds of syntax, [profile x] and [x], are understood; and no stranger's file below $HOME comes first.
            session.set_config_variable("credentials_file", str(config))
    if settings.region:
        session.set_config_variable("region", settings.region)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound as error:
        raise errors.UsageError([f"store.profile: {printable(str(error))}"]) from None
    except botocore.exceptions.ConfigParseError as error:
        raise errors.UsageError([f"config: {printable(str(error))}"]) from None
    return session


def _credentials(session: Any, settings: StoreSettings) -> Any:
    import botocore.exceptions
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    try:
        source = session.get_credentials()
    except (botocore.exceptions.BotoCoreError, *_OF_THE_CHAIN) as error:
        raise errors.AccessRefused(f"no credentials: {printable(str(error))}") from None
    if source is None or not settings.role_arn:
        return source
    extra = {"RoleSessionName": settings.session_name or f"byos-run-{int(time.time())}"}
    if settings.external_id:
        extra["ExternalId"] = settings.external_id

    def client(name: str, **arguments: Any) -> Any:
        endpoint = {"endpoint_url": settings.endpoint_url} if settings.endpoint_url else {}
        # STS of a bare node has no region set; S3's own default is right for it too.
        region = settings.region or session.get_config_variable("region") or "us-east-1"
        return session.create_client(
            name, region_name=region, verify=settings.ca_bundle or None, **endpoint, **arguments
        )

    fetcher = AssumeRoleCredentialFetcher(client, source, settings.role_arn, extra_args=extra)
    return DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)


def _keys_of(credentials: Any) -> Keys:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        frozen = credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError, *_OF_THE_CHAIN) as error:
        message = f"no credentials: {printable(str(error))}"
        if _may_pass(error):
            raise Transient(message) from None
        raise errors.AccessRefused(message) from None
    return _sendable(Keys(frozen.access_key, frozen.secret_key, frozen.token or ""))


def _may_pass(error: Exception) -> bool:
    """Whoever gives the keys (STS, a metadata service) is out of reach or busy, and has not refused."""
    from botocore.exceptions import ClientError, HTTPClientError, SSLError
    from botocore.exceptions import ConnectionError as NotConnected

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or error.response.get("Error", {}).get("Code", "") in _BUSY
    return isinstance(error, (HTTPClientError, NotConnected)) and not isinstance(error, SSLError)


def _no_credentials(place: Place) -> errors.AccessRefused:
    again = bool(place.environ.get("RESCALE_IG_RESTART_COUNT", "0").strip("0"))
    return errors.AccessRefused(
        "no credentials found: neither in config in the run directory, nor in the environment, nor in the usual files",
        hint="lay config down again: it is deleted as soon as it is read" if again or place.on_platform else
        "put a file named config with [default], aws_access_key_id and aws_secret_access_key into the run directory",
    )  # fmt: skip
