"""The key and the certificate request that Wise's Developer Hub takes; both are made in memory."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wise_creds.errors import ConfigError, CredentialsError
from wise_creds.secret import Secret
from wise_creds.shield import shielded, unexpected

# What Wise lists, with the one of its own example first: https://docs.wise.com/guides/developer/auth-and-security/mtls
KINDS = ("rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384")
_CURVES = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
_LONGEST = 64  # X.520: ub-organization-name and ub-common-name


@shielded(unexpected)
def make_request(client_id: Secret, organisation: str, *, kind: str = "rsa-4096") -> tuple[str, Secret]:
    """
    Make a private key and the request (PKCS#10) for its certificate; `rsa-4096` takes seconds.

    Args:
        client_id: becomes the common name, as Wise would have it anyway: it can be read out of the request.
        organisation: the only other part of the name; Wise wants it.
        kind: one of `KINDS`.

    Returns:
        The request as bare PEM, and the key as unencrypted PKCS#8 PEM.

    Raises:
        ConfigError: the organisation, or the kind of key, does not serve (WC710).
        CredentialsError: the client ID does not serve as a common name (WC711).
    """
    if kind not in KINDS:
        raise ConfigError("Wise takes no such kind of key", code="WC710", location="kind", hint=", ".join(KINDS))
    if not _fits(organisation):
        raise ConfigError("not 1 to 64 printable characters, without white space around them", code="WC710",
                          location="organisation", hint="give the company's name as it is registered")  # fmt: skip
    common_name = client_id.reveal_bytes().decode("ascii", "replace")
    if not _fits(common_name) or not common_name.isascii():
        raise CredentialsError("not 1 to 64 printable ASCII characters, without white space around them", code="WC711",
                               location="client_id", hint="copy it from Developer Hub again")  # fmt: skip
    key = ec.generate_private_key(_CURVES[kind]) if kind in _CURVES else rsa.generate_private_key(65537, int(kind[4:]))
    name = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ]
    request = x509.CertificateSigningRequestBuilder(x509.Name(name)).sign(
        key, SHA384() if kind == "ec-p384" else SHA256()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return request.public_bytes(Encoding.PEM).decode("ascii"), Secret(pem, name="private_key")


def _fits(text: str) -> bool:
    return 1 <= len(text) <= _LONGEST and text.isprintable() and text == text.strip()
