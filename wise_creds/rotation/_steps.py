"""The steps; each reads what the store has, does one thing to it, and tells what it has then."""

from __future__ import annotations

from wise_creds.config import ConfigSource
from wise_creds.rotation._sources import Sources
from wise_creds.rotation._status import RotationStatus
from wise_creds.secret import Secret
from wise_creds.staged import check_with, token_with


def stage(
    namespace: str | None = None,
    *,
    config: ConfigSource = None,
    client_secret: Secret | None = None,
    certificate: str | None = None,
    private_key: Secret | None = None,
    dry_run: bool = False,
) -> RotationStatus:
    """
    Write new values beside the current version; what is not given is kept from pending, else from current.

    Args:
        namespace: `"sandbox"` or `"production"`; default: `$WISE_CREDS_NAMESPACE`, else an error.
        config: a path or a mapping; default: `$WISE_CREDS_CONFIG`, else `./wise-creds.toml`.
        client_secret: the new one.
        certificate: PEM, leaf first; belongs to `private_key`, or to the key that is staged already.
        private_key: PEM.
        dry_run: check that it could be staged; write nothing.

    Raises:
        RotationError: nothing given, the fields are not one source's, or that one cannot be rotated.
        LoadError, ConfigError: as for `load`.
    """
    text = None if certificate is None else Secret(certificate, name="certificate")
    given = {"client_secret": client_secret, "certificate": text, "private_key": private_key}
    fields = {name: value for name, value in given.items() if value is not None}
    with Sources(namespace, config) as sources:
        if not fields:
            raise sources.refused("nothing to stage", "WC733", "give a client secret, a certificate or a private key")
        one = sources.holding(fields)
        if not dry_run:
            sources.ask(one, sources.provider(one).stage, fields)
        return sources.told(one)


def verify(namespace: str | None = None, *, config: ConfigSource = None) -> RotationStatus:
    """
    Check the material with the staged values in place, then get a token over mTLS with it, which is dropped.

    Args:
        namespace: as for `stage`.
        config: as for `stage`.

    Raises:
        RotationError: nothing is staged (WC701), or in several sources (WC731).
        LoadError: everything that is wrong with the material.
        TokenError: Wise gives no token for it.
    """
    with Sources(namespace, config) as sources:
        one, pending = sources.staged()
        token_with(sources.config, check_with(sources.config, {one.number: pending}))
        return sources.told(one)


def promote(namespace: str | None = None, *, config: ConfigSource = None) -> RotationStatus:
    """
    Make the staged version the current one, if it is whole and nobody has changed the current one meanwhile.

    Args:
        namespace: as for `stage`.
        config: as for `stage`.

    Raises:
        RotationError: nothing is staged (WC701), in several sources (WC731), or somebody was faster (WC702).
        LoadError: everything that is wrong with the material; `verify` would tell the same.
    """
    with Sources(namespace, config) as sources:
        one, pending = sources.staged()
        provider = sources.provider(one)
        if one.is_current():
            # An earlier run ended between its two writes; a second promotion would hide the version before.
            sources.ask(one, provider.discard)
        else:
            check_with(sources.config, {one.number: pending})
            sources.ask(one, provider.promote, one.current.version)
        return sources.told(one)


def rollback(namespace: str | None = None, *, config: ConfigSource = None) -> RotationStatus:
    """
    Make the previous version the current one again; what is staged stays.

    Args:
        namespace: as for `stage`.
        config: as for `stage`.

    Raises:
        RotationError: there is no previous version, or it has been rolled back already (WC703), or somebody was faster
            (WC702).
    """
    with Sources(namespace, config) as sources:
        one = sources.chosen()
        provider = sources.provider(one)
        if hasattr(provider, "previous") and sources.previous(one) is None:
            raise sources.refused("there is no previous version, or it has been brought back already", "WC703",
                                  "stage and promote the values instead", at=one)  # fmt: skip
        sources.ask(one, provider.rollback, one.current.version)
        return sources.told(one)


def discard(namespace: str | None = None, *, config: ConfigSource = None) -> RotationStatus:
    """
    Drop what is staged.

    Args:
        namespace: as for `stage`.
        config: as for `stage`.

    Raises:
        RotationError: nothing is staged (WC701), or in several sources (WC731).
    """
    with Sources(namespace, config) as sources:
        one, _ = sources.staged()
        sources.ask(one, sources.provider(one).discard)
        return sources.told(one)


def status(namespace: str | None = None, *, config: ConfigSource = None) -> RotationStatus:
    """
    Tell which versions the store has.

    Args:
        namespace: as for `stage`.
        config: as for `stage`.

    Raises:
        RotationError: no source can be rotated, or several could and none has anything staged.
    """
    with Sources(namespace, config) as sources:
        return sources.told(sources.chosen())
