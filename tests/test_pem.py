"""PEM as people store it is read; what is none is named by its looks."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support import Material

from wise_creds._pem import NotPemError, blocks

MATERIAL = Material()
PEM = MATERIAL.issued.pem
KEY = MATERIAL.issued.key_pem
DER = MATERIAL.issued.certificate.public_bytes(Encoding.DER)

GOOD = {
    "as it is": PEM,
    "CRLF": PEM.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + PEM,
    "literal newlines": PEM.replace(b"\n", b"\\n"),
    "literal CRLF": PEM.replace(b"\n", b"\\r\\n"),
    "indented": b"\n".join(b"    " + line for line in PEM.splitlines()),
    "spaces for newlines": PEM.replace(b"\n", b" "),
    "one line of base64": PEM.replace(b"\n", b"").replace(b"CERTIFICATE-----M", b"CERTIFICATE-----\nM"),
    "text around": b"Bag Attributes\n  friendlyName: x\n" + PEM + b"\nthe end",
    "base64 of PEM": base64.b64encode(PEM),
    "base64 of DER": base64.b64encode(DER),
    "wrapped base64 of DER": base64.encodebytes(DER),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_common_disfigurement_is_forgiven(name: str) -> None:
    """All of these are the same certificate."""
    assert [(block.label, block.pem) for block in blocks(GOOD[name], der_label="CERTIFICATE")] == [("CERTIFICATE", PEM)]


def test_glued_blocks_are_parted() -> None:
    """A key and a chain in one file, without a line end between."""
    found = blocks(KEY.strip() + PEM.strip() + PEM, der_label="CERTIFICATE")
    assert [(block.is_private_key, block.is_certificate, block.is_encrypted) for block in found] == [
        (True, False, False), (False, True, False), (False, True, False),
    ]  # fmt: skip


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b" "], ids=["LF", "CRLF", "space"])
def test_a_legacy_encrypted_key_keeps_its_header(line_end: bytes) -> None:
    """`Proc-Type: 4,ENCRYPTED` is part of the block."""
    pem = MATERIAL.issued.key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"pw")
    )
    (block,) = blocks(pem.replace(b"\n", line_end), der_label="PRIVATE KEY")
    assert (block.is_encrypted, block.pem) == (True, pem)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (DER, "DER"),
        (b"not base64 !", "neither PEM nor base64"),
        (base64.b64encode(b"hello"), "neither of PEM nor of DER"),
        (b"-----BEGIN CERTIFICATE-----\nMII", "no block is complete"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----", "damaged"),
        (bytes(range(256)), "neither PEM nor base64"),
    ],
    ids=["empty", "blank", "DER", "text", "other base64", "cut", "damaged", "binary"],
)
def test_what_is_not_pem_is_named_by_its_looks(raw: bytes, reason: str) -> None:
    """Never by its content."""
    with pytest.raises(NotPemError, match=reason):
        blocks(raw, der_label="CERTIFICATE")
