"""A key and a certificate for `localhost` or other names, signed by itself: what a store inside a company has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from Crypto.Hash import SHA256
from Crypto.IO import PEM
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS
from Crypto.Util.asn1 import DerBitString, DerInteger, DerObjectId, DerOctetString, DerSequence, DerSetOf

if TYPE_CHECKING:
    from pathlib import Path

_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_COMMON_NAME = "2.5.4.3"
_SUBJECT_ALT_NAME = "2.5.29.17"


def lay_down(directory: Path, *names: str) -> Path:
    """For `localhost` or `names`; writes `public.crt` and `private.key`, returns the first's path, which is its own CA."""
    key = ECC.generate(curve="P-256")
    algorithm = _sequence(DerObjectId(_ECDSA_SHA256).encode())
    name = _sequence(DerSetOf([_sequence(DerObjectId(_COMMON_NAME).encode(), _typed(0x0C, b"localhost"))]).encode())
    validity = _sequence(_typed(0x17, b"200101000000Z"), _typed(0x17, b"491231000000Z"))
    alternative = DerOctetString(_sequence(*(_typed(0x82, each.encode()) for each in names or ("localhost",)))).encode()
    extensions = _sequence(_sequence(DerObjectId(_SUBJECT_ALT_NAME).encode(), alternative))
    told = _sequence(
        _typed(0xA0, DerInteger(2).encode()), DerInteger(7).encode(), algorithm, name, validity, name,
        key.public_key().export_key(format="DER"), _typed(0xA3, extensions),
    )  # fmt: skip
    signature = DSS.new(key, "fips-186-3", encoding="der").sign(SHA256.new(told))
    certificate = _sequence(told, algorithm, DerBitString(signature).encode())
    directory.mkdir(parents=True)
    (directory / "public.crt").write_text(_pem("CERTIFICATE", certificate), encoding="ascii")
    (directory / "private.key").write_text(key.export_key(format="PEM"), encoding="ascii")
    return directory / "public.crt"


def _sequence(*items: bytes) -> bytes:
    encoded: bytes = DerSequence(items).encode()
    return encoded


def _typed(tag: int, content: bytes) -> bytes:
    """DER of one element by its tag; contents here are shorter than 256 bytes."""
    return bytes([tag, *([0x81] if len(content) > 127 else []), len(content)]) + content


def _pem(label: str, content: bytes) -> str:
    text: str = PEM.encode(content, label)
    return f"{text}\n"
