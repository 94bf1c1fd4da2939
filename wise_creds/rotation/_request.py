"""A new key, staged, and the certificate request for it."""

from __future__ import annotations

from dataclasses import dataclass

from wise_creds.config import ConfigSource
from wise_creds.rotation._csr import make_request
from wise_creds.rotation._sources import Sources
from wise_creds.rotation._status import RotationStatus


@dataclass(frozen=True)
class CertificateRequest:
    """
    What `request_certificate` made.

    Attributes:
        request: the CSR, PEM.
        status: the key is in its pending version.
        replaced: whether another key had been staged before; a request made for that one is void.
    """

    request: str
    status: RotationStatus
    replaced: bool


def request_certificate(
    namespace: str | None = None, *, organisation: str, kind: str = "rsa-4096", config: ConfigSource = None
) -> CertificateRequest:
    """
    Make a key, stage it, and give the request for its certificate, which goes to Wise's Developer Hub.

    Args:
        namespace: as for `stage`.
        organisation: your company, as Wise knows it.
        kind: `"rsa-4096"`, `"rsa-3072"`, `"rsa-2048"`, `"ec-p256"` or `"ec-p384"`.
        config: as for `stage`.

    Raises:
        RotationError: no one source holds the key, or that one cannot be rotated.
        LoadError, ConfigError: as for `load`; also an organisation or kind that does not serve.
        CredentialsError: there is no client ID to request a certificate for, or it does not serve as a name.
    """
    with Sources(namespace, config) as sources:
        one = sources.holding(["private_key"])
        made, key = make_request(sources.client_id(), organisation, kind=kind)
        staged, current = (None if one.pending is None else one.pending.fields.get("private_key")), one.current
        replaced = staged is not None and staged != current.fields.get("private_key")
        sources.ask(one, sources.provider(one).stage, {"private_key": key})
        return CertificateRequest(made, sources.told(one), replaced)
