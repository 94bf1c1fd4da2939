"""What AWS and botocore say, in our words. Only a failure's code and status are shown, its text never."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from wise_creds.errors import (
    AccessDeniedError,
    ConfigError,
    ProviderError,
    ProviderUnavailableError,
    SecretNotFoundError,
    WiseCredsError,
)
from wise_creds.shield import described

_DENIED = frozenset(("AccessDeniedException", "AccessDenied", "UnauthorizedOperation"))
_KMS = frozenset(("DecryptionFailure", "EncryptionFailure", "DecryptionFailureException", "EncryptionFailureException"))
_KMS_WORDS = ("access to kms", "perform: kms:")  # not just "kms", which a secret's or role's name may hold
_DELETED = ("marked for deletion", "marked deleted", "scheduled for deletion", "was deleted")
_THROTTLED = frozenset(
    ("ThrottlingException", "Throttling", "ThrottledException", "RequestThrottled", "RequestThrottledException",
     "TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "PriorRequestNotComplete")
)  # fmt: skip
_IDENTITY = frozenset(
    ("ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId",
     "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException",
     "MissingAuthenticationToken", "MissingAuthenticationTokenException", "RequestExpired", "NotAuthorized",
     "IDPRejectedClaim", "InvalidIdentityToken", "RegionDisabledException")
)  # fmt: skip
_NO_IDENTITY = frozenset((
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError",
    "TokenRetrievalError", "SSOError", "MetadataRetrievalError", "LoginError", "RefreshWithMFAUnsupportedError",
    "InfiniteLoopConfigError", "UnknownCredentialError", "InvalidIMDSEndpointError", "InvalidIMDSEndpointModeError",
))  # fmt: skip
_SETTINGS = frozenset((
    "ProfileNotFound", "ConfigNotFound", "ConfigParseError", "InvalidConfigError", "UnknownEndpointError",
    "InvalidRegionError", "EndpointProviderError", "InvalidEndpointConfigurationError", "EndpointVariantError",
    "InvalidProxiesConfigError", "InvalidDefaultsMode", "InvalidRetryModeError", "InvalidRetryConfigurationError",
    "MultipleConfigs", "UnknownRegionError", "UnsupportedServiceProtocolsError",
))  # fmt: skip


def translated(caught: BaseException, *, action: str, place: str) -> WiseCredsError | None:
    """
    Make our error out of one of botocore's; None for anything that is not botocore's.

    Args:
        caught: what was raised.
        action: the IAM action that was tried.
        place: the secret, for messages.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if isinstance(caught, ResponseParserError):
        return made("foreign", place)
    if isinstance(caught, ClientError):
        said, kind = _answered(caught.response)
    elif isinstance(caught, BotoCoreError):
        said, kind = _failed(caught)
    else:
        return None
    return made(kind, place, said=said, action=action)


def made(kind: str, place: str, *, said: str = "", action: str = "") -> WiseCredsError:
    """Make one of our errors."""
    error, code, message, hint = _WORDS[kind]
    return error(message.format(said=said, action=action), code=code, location=place, hint=hint.format(action=action))


_WORDS: dict[str, tuple[type[WiseCredsError], str, str, str]] = {
    "stage": (SecretNotFoundError, "WC321", "the secret has no value for this stage or version",
              "aws secretsmanager describe-secret shows its labels"),
    "absent": (SecretNotFoundError, "WC301", "no such secret in this account and region",
               "is the name whole? a secret of another account needs its full ARN"),
    "deleted": (SecretNotFoundError, "WC322", "the secret is marked for deletion",
                "aws secretsmanager restore-secret brings it back"),
    "key": (AccessDeniedError, "WC323", "the KMS key of the secret may not be used ({said})",
            "allow kms:Decrypt (to write kms:GenerateDataKey too) in both policies"),
    "denied": (AccessDeniedError, "WC302", "AWS refuses {action} ({said})",
               "allow {action} on it; docs/aws.md has the least policies"),
    "identity": (AccessDeniedError, "WC325", "AWS does not accept our credentials ({said})",
                 "have they expired? is this machine's clock right?"),
    "throttled": (ProviderUnavailableError, "WC327", "AWS limits the rate ({said})",
                  "try again; fewer processes that start at once"),
    "outage": (ProviderUnavailableError, "WC303", "AWS cannot serve now ({said})", "see AWS's health dashboard"),
    "reference": (ConfigError, "WC334", "the reference is not accepted ({said})",
                  "check secret, stage and version_id"),
    "other": (ProviderError, "WC335", "AWS refuses {action} ({said})",
              "look the code up in the API reference of Secrets Manager"),
    "region": (ConfigError, "WC326", "no region", "add region, or give the ARN as secret"),
    "nobody": (AccessDeniedError, "WC324", "no AWS credentials ({said})",
               "a role of the machine or task, a profile, or $AWS_… variables give them"),
    "settings": (ConfigError, "WC333", "the AWS configuration of this machine does not serve ({said})",
                 "check ~/.aws/config, region, fips and dualstack"),
    "tls": (ProviderUnavailableError, "WC303", "TLS with AWS failed ({said})",
            "is there a TLS-inspecting proxy? ca_bundle names its CA"),
    "slow": (ProviderUnavailableError, "WC304", "AWS did not answer ({said})",
             "is there a route, or a VPC endpoint and its policy?"),
    "network": (ProviderUnavailableError, "WC303", "AWS cannot be reached ({said})",
                "is there a route, or a VPC endpoint and its policy?"),
    "foreign": (ProviderError, "WC336", "what came back is not an answer of AWS",
                "is endpoint_url, or sts_endpoint_url, the right host?"),
    "library": (ProviderError, "WC335", "botocore failed ({said})", "please report this"),
}  # fmt: skip


def _answered(response: Any) -> tuple[str, str]:  # noqa: ANN401  a foreign dictionary
    error = response.get("Error") or {}
    code, text = str(error.get("Code")), str(error.get("Message")).lower()
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    said = code if re.fullmatch(r"[A-Za-z][A-Za-z0-9.]{0,63}", code) else f"status {status:d}"
    parameter = code in ("InvalidRequestException", "InvalidParameterException", "ValidationException")
    return said, _first(
        stage=code == "ResourceNotFoundException" and ("staging label" in text or "versionid" in text),
        absent=code == "ResourceNotFoundException",
        deleted=parameter and any(words in text for words in _DELETED),
        key=code in _KMS or (code in _DENIED and any(words in text for words in _KMS_WORDS)),
        denied=code in _DENIED,
        identity=code in _IDENTITY,
        throttled=code in _THROTTLED or status == HTTPStatus.TOO_MANY_REQUESTS,
        outage=status >= HTTPStatus.INTERNAL_SERVER_ERROR or code == "IDPCommunicationError",
        reference=(parameter and code != "InvalidRequestException") or code == "ValidationError",
        foreign=not isinstance(error.get("Code"), str) or not code[:1].isalpha() or code == "None",
        other=True,
    )


def _failed(caught: BaseException) -> tuple[str, str]:
    kinds = {kind.__name__ for kind in type(caught).__mro__}
    said = described(caught, place=False)
    return said, _first(
        region="NoRegionError" in kinds,
        nobody=bool(kinds & _NO_IDENTITY),
        settings=bool(kinds & _SETTINGS),
        reference=bool(kinds & {"ParamValidationError", "ValidationError"}),
        tls="SSLError" in kinds,
        slow=bool(kinds & {"ConnectTimeoutError", "ReadTimeoutError"}),
        network=bool(kinds & {"HTTPClientError", "ConnectionError", "EndpointConnectionError"}),
        library=True,
    )


def _first(**kinds: bool) -> str:
    return next(kind for kind, holds in kinds.items() if holds)
