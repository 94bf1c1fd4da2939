"""The provider `aws`: what `_reading` reads, and a pending version beside the current one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from wise_creds import RotationError, Secret, SecretDocument, SecretNotFoundError
from wise_creds.documents import put_fields, read_document
from wise_creds.errors import ConfigError
from wise_creds_aws._reading import CURRENT, AwsReader

STAGED = "WISE_STAGED"
"""Our own label: while `AWSPENDING` sits on a version that is not current, AWS refuses `RotateSecret`."""
_PREVIOUS = "AWSPREVIOUS"


class AwsProvider(AwsReader):
    """
    One secret of AWS Secrets Manager; the pending version carries the label `WISE_STAGED`.

    To read it needs `secretsmanager:GetSecretValue`, for the version probe `secretsmanager:DescribeSecret`,
    `kms:Decrypt` for a key of your own, `sts:AssumeRole` for roles. To stage it also needs
    `secretsmanager:PutSecretValue`, `secretsmanager:UpdateSecretVersionStage` and `kms:GenerateDataKey`. The identity is
    boto3's: `$AWS_…`, a profile, the role of task or machine.
    """

    def stage(self, fields: Mapping[str, Secret], *, deadline: float) -> str:
        """Write the fields over what is staged, else over a copy of the current version; the same again is a no-op."""
        client = self._client(deadline)
        labels = self._labels(client)
        staged, current = _holder(labels, STAGED), _holder(labels, CURRENT)
        if staged is None and current is None:
            raise SecretNotFoundError("the secret has no value yet", code="WC321", location=self._place(),
                                      hint="give it a first value, then rotate")  # fmt: skip
        before = self._value(client, staged or current)
        content = self._changed(before, fields)
        if staged is not None and all(before.get(key) == value for key, value in content.items()):
            return staged
        # A random token: one made from the content would publish a fingerprint of it.
        answer = self._call(client, "put_secret_value", "secretsmanager:PutSecretValue", VersionStages=[STAGED],
                            ClientRequestToken=str(uuid.uuid4()), **content)  # fmt: skip
        version: str = answer["VersionId"]
        return version

    def fetch_staged(self, *, deadline: float) -> SecretDocument | None:
        """Read the pending version."""
        client = self._client(deadline)
        staged = _holder(self._labels(client), STAGED)
        return None if staged is None else self._document(self._value(client, staged))

    def promote(self, expected: str, *, deadline: float) -> None:
        """Move `AWSCURRENT` from the expected version to the pending one, then take our label away."""
        client = self._client(deadline)
        labels = self._labels(client)
        staged, current = _holder(labels, STAGED), _holder(labels, CURRENT)
        if staged is None and _holder(labels, _PREVIOUS) == expected and self._newer(client, current, expected):
            return
        if staged is None:
            raise RotationError("nothing is staged", code="WC701", location=self._place(), hint="rotate stage first")
        if staged != current:
            self._make_current(client, staged, current, expected)
        self._call(client, "update_secret_version_stage", _MOVE, VersionStage=STAGED, RemoveFromVersionId=staged)

    def rollback(self, expected: str, *, deadline: float) -> None:
        """Move `AWSCURRENT` from the expected version back to the previous one."""
        client = self._client(deadline)
        labels = self._labels(client)
        current, previous = _holder(labels, CURRENT), _holder(labels, _PREVIOUS)
        if previous == expected and self._newer(client, expected, current):
            return
        if previous is None:
            raise RotationError("there is no previous version", code="WC703", location=self._place(),
                                hint="stage and promote the old values instead")  # fmt: skip
        self._make_current(client, previous, current, expected)

    def discard(self, *, deadline: float) -> None:
        """Take our label away; AWS deletes a version without labels in time."""
        client = self._client(deadline)
        staged = _holder(self._labels(client), STAGED)
        if staged is not None:
            self._call(client, "update_secret_version_stage", _MOVE, VersionStage=STAGED, RemoveFromVersionId=staged)

    def _make_current(self, client: Any, target: str, current: str | None, expected: str) -> None:  # noqa: ANN401
        moved = current != expected
        if not moved:
            try:
                self._call(client, "update_secret_version_stage", _MOVE, VersionStage=CURRENT, MoveToVersionId=target,
                           RemoveFromVersionId=expected)  # fmt: skip
            except ConfigError as refused:
                if refused.code != "WC334":
                    raise
                # Lost to somebody else; or won by an attempt whose answer was lost and that botocore repeated.
                moved = _holder(self._labels(client), CURRENT) != target
        if moved:
            raise RotationError("the current version is not the expected one: somebody else has rotated", code="WC702",
                                location=self._place(), hint="look at its status, then decide anew")  # fmt: skip

    def _newer(self, client: Any, one: str | None, other: str | None) -> bool:  # noqa: ANN401
        """Whether the first version was made after the second."""
        if one is None or other is None:
            return False
        first, second = (self._value(client, version)["CreatedDate"] for version in (one, other))
        return bool(first >= second)

    def _changed(self, before: Mapping[str, Any], fields: Mapping[str, Secret]) -> dict[str, str | bytes]:
        """Give the secret's content with some fields changed, in the form that it has."""
        options, text = self._options, before.get("SecretString")
        plain = options.field if text is not None else options.field or "pkcs12"
        if plain is not None:
            if set(fields) != {plain}:
                raise RotationError(f"this secret holds {plain} and nothing else", code="WC704", location=self._place(),
                                    hint="stage only that field, or the secret that holds the others")  # fmt: skip
            value = fields[plain]
            return {"SecretString": value.reveal()} if text is not None else {"SecretBinary": value.reveal_bytes()}
        document = read_document(str(text).encode(), "JSON", location=self._place())
        kept = json.loads(json.dumps(document))
        put_fields(document, fields, options.fields)
        return {"SecretString": str(text) if document == kept else json.dumps(document, indent=1)}


_MOVE = "secretsmanager:UpdateSecretVersionStage"


def _holder(labels: Mapping[str, list[str]], label: str) -> str | None:
    return next((version for version, all_of_it in labels.items() if label in all_of_it), None)
