"""PEM as people really store it, made into PEM as OpenSSL wants it (RFC 7468)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_LEGACY_ENCRYPTION = re.compile(
    rb"\s*Proc-Type:\s*4,ENCRYPTED\s+DEK-Info:\s*([A-Z0-9-]+,[0-9A-Fa-f]+)\s(.*)", re.DOTALL
)
_DER_SEQUENCE = 0x30


class NotPemError(ValueError):
    """What stands there is not PEM; the message says what it looks like, never what it is."""


@dataclass(frozen=True, eq=False)
class Block:
    """One PEM block: its label, and itself with clean lines."""

    label: str
    pem: bytes

    @property
    def is_certificate(self) -> bool:
        """Whether the block is an X.509 certificate."""
        return self.label in ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")

    @property
    def is_private_key(self) -> bool:
        """Whether the block is a private key of any form."""
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_encrypted(self) -> bool:
        """Whether a passphrase is needed."""
        return self.label == "ENCRYPTED PRIVATE KEY" or b"4,ENCRYPTED" in self.pem


def blocks(raw: bytes, *, der_label: str) -> list[Block]:
    r"""
    Find the PEM blocks in whatever a store gave.

    Forgives a byte order mark, CRLF, a literal `\n` for each newline, indentation, spaces for newlines, blocks glued
    together, text around blocks, and base64 of PEM or of DER.

    Args:
        raw: the content.
        der_label: the label to give to base64 of DER.

    Raises:
        NotPemError: there is no block; the reason is safe to show.
    """
    text = raw.removeprefix(b"\xef\xbb\xbf")
    if b"-----BEGIN" not in text:
        text = _decoded(text, der_label)
    text = text.replace(b"\\r", b"\r").replace(b"\\n", b"\n")
    found = [Block(label.decode(), _clean(label, body)) for label, body in _BLOCK.findall(text)]
    if not found:
        raise NotPemError("it begins like PEM but no block is complete")
    return found


def _decoded(text: bytes, der_label: str) -> bytes:
    if not text.strip():
        raise NotPemError("it is empty")
    if text[0] == _DER_SEQUENCE and not text.isascii():
        raise NotPemError("it looks like DER; convert it with openssl (-inform DER -outform PEM)")
    try:
        inner = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise NotPemError("it is neither PEM nor base64 of PEM or DER") from None
    if b"-----BEGIN" in inner:
        return inner
    if inner[:1] != bytes([_DER_SEQUENCE]):
        raise NotPemError("it is base64, but neither of PEM nor of DER")
    return _wrapped(der_label.encode(), b"", inner)


def _clean(label: bytes, body: bytes) -> bytes:
    legacy = _LEGACY_ENCRYPTION.fullmatch(body)
    header = b"Proc-Type: 4,ENCRYPTED\nDEK-Info: " + legacy[1] + b"\n\n" if legacy else b""
    try:
        return _wrapped(
            label, header, base64.b64decode(b"".join((legacy[2] if legacy else body).split()), validate=True)
        )
    except binascii.Error:
        raise NotPemError(f"the base64 inside a {label.decode()} block is damaged") from None


def _wrapped(label: bytes, header: bytes, der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %s-----\n%s%s\n-----END %s-----\n" % (label, header, lines, label)
