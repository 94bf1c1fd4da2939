"""One secret while AWS rotates it: the four steps' work on its versions."""

from __future__ import annotations

from typing import Any

from wise_creds import RotationError, SecretDocument, SecretNotFoundError
from wise_creds_aws._provider import STAGED, AwsProvider, _holder
from wise_creds_aws._reading import CURRENT

PENDING = "AWSPENDING"


class RotatingSecret(AwsProvider):
    """
    The provider, and what it takes to make the version of a rotation current; its `token` is that version's ID.

    Each call may be repeated, whatever an earlier one has come to.
    """

    def is_current(self, token: str, *, deadline: float) -> bool:
        """
        Whether the rotation has done its work already.

        Raises:
            RotationError: the secret does not rotate (WC722), or not to this version (WC723).
        """
        client = self._opened_for_staging(deadline)
        described = self._call(client, "describe_secret", "secretsmanager:DescribeSecret")
        labels = (described.get("VersionIdsToStages") or {}).get(token, ())
        if CURRENT in labels:
            return True
        if not described.get("RotationEnabled"):
            raise RotationError("rotation is not enabled for this secret", code="WC722", location=self._place(),
                                hint="aws secretsmanager rotate-secret turns it on")  # fmt: skip
        if PENDING not in labels:
            raise RotationError("the event's version is not pending: its rotation is over, or never began", code="WC723",
                                location=self._place(), hint="aws secretsmanager rotate-secret begins a new one")  # fmt: skip
        return False

    def create(self, token: str, rotation_token: str | None, *, deadline: float) -> None:
        """
        Copy what is staged into the pending version.

        Raises:
            RotationError: nothing is staged (WC701), or it is older than what is current (WC750).
        """
        client = self._opened_for_staging(deadline)
        if self._content(client, token) is not None:
            return
        labels = self._labels(client)
        staged, current = _holder(labels, STAGED), _holder(labels, CURRENT)
        content = self._content(client, staged)
        # A copy of the current version would pass every step, and take AWSPREVIOUS from the one that a rollback needs.
        if staged is None or content is None or content == self._content(client, current):
            raise RotationError("nothing is staged, so there is nothing to rotate to; nothing has changed", code="WC701",
                                location=self._place(), hint="wise-creds rotate stage, then rotate again")  # fmt: skip
        self._refuse_stale(client, staged, current)
        passed_on = {} if rotation_token is None else {"RotationToken": rotation_token}
        self._call(client, "put_secret_value", "secretsmanager:PutSecretValue", ClientRequestToken=token,
                   VersionStages=[PENDING], **content, **passed_on)  # fmt: skip

    def pending(self, token: str, *, deadline: float) -> SecretDocument:
        """
        Read the pending version.

        Raises:
            RotationError: it has no value yet (WC724).
        """
        value = self._held(self._opened_for_staging(deadline), token)
        if value is None:
            raise RotationError("the pending version has no value yet", code="WC724", location=self._place(),
                                retryable=True, hint="createSecret comes first")  # fmt: skip
        return self._document(value)

    def finish(self, token: str, *, deadline: float) -> None:
        """
        Move `AWSCURRENT` to the pending version, then take its label and ours away.

        Raises:
            RotationError: a newer version is current (WC750), or becomes so now (WC702).
        """
        client = self._opened_for_staging(deadline)
        current = _holder(self._labels(client), CURRENT)
        if current != token:
            self._refuse_stale(client, token, current)
            self._make_current(client, token, current, current or "")
        labels = self._labels(client)
        staged = _holder(labels, STAGED)
        # Something else may have been staged since: that is for the next rotation.
        if staged is not None and self._content(client, staged) == self._content(client, token):
            self._unlabel(client, STAGED, staged)
        if PENDING in labels.get(token, ()):  # AWS says that it does this itself, and that the function should
            self._unlabel(client, PENDING, token)

    def end(self, token: str, *, deadline: float) -> bool:
        """Take `AWSPENDING` away from a version that is not to become current: AWS begins no rotation beside it."""
        client = self._opened_for_staging(deadline)
        labels = self._labels(client).get(token, ())
        if PENDING not in labels or CURRENT in labels:
            return False
        self._unlabel(client, PENDING, token)
        return True

    def _held(self, client: Any, version: str) -> dict[str, Any] | None:  # noqa: ANN401
        """Read a version; None if it is registered, but has no value."""
        try:
            return self._value(client, version)
        except SecretNotFoundError as absent:
            if absent.code != "WC321":
                raise
        return None

    def _content(self, client: Any, version: str | None) -> dict[str, Any] | None:  # noqa: ANN401
        """Give a version's value as `PutSecretValue` takes it; None if there is none."""
        value = None if version is None else self._held(client, version)
        return value and {key: value[key] for key in ("SecretString", "SecretBinary") if key in value}
