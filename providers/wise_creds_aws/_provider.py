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

    _chosen: str | None = None
    """The pending version that was staged or looked at; no other one is promoted."""

    def stage(self, fields: Mapping[str, Secret], *, deadline: float) -> str:
        """Write the fields over what is staged, else over a copy of the current version; the same again is a no-op."""
        client = self._opened_for_staging(deadline)
        labels = self._labels(client)
        staged, current = _holder(labels, STAGED), _holder(labels, CURRENT)
        if staged is None and current is None:
            raise SecretNotFoundError("the secret has no value yet", code="WC321", location=self._place(),
                                      hint="give it a first value, then rotate")  # fmt: skip
        if staged is not None:
            self._refuse_stale(client, staged, current)
        before = self._value(client, staged or current)
        content = self._changed(before, fields)
        if staged is not None and all(before.get(key) == value for key, value in content.items()):
            self._chosen = staged
            return staged
        self._chosen = self._put(client, labels, staged, content)
        if _holder(self._labels(client), CURRENT) != current:
            self._unlabel(client, STAGED, self._chosen)
            raise self._overtaken()
        return self._chosen

    def _put(
        self,
        client: Any,  # noqa: ANN401
        labels: Mapping[str, list[str]],
        staged: str | None,
        content: Mapping[str, Any],
    ) -> str:
        """Write a version and move our label to it, from where it was seen: `PutSecretValue` would take it from anybody."""
        for other, own in labels.items():
            for left_over in (label for label in own if label.startswith(f"{STAGED}_")):
                self._unlabel(client, left_over, other)  # of a run that was killed
        # Random tokens: one made from the content would publish a fingerprint of it.
        token, once = str(uuid.uuid4()), f"{STAGED}_{uuid.uuid4().hex[:8]}"
        answer = self._call(client, "put_secret_value", "secretsmanager:PutSecretValue", VersionStages=[once],
                            ClientRequestToken=token, **content)  # fmt: skip
        version: str = answer["VersionId"]
        held = {} if staged is None else {"RemoveFromVersionId": staged}
        try:
            self._call(
                client, "update_secret_version_stage", _MOVE, VersionStage=STAGED, MoveToVersionId=version, **held
            )
        except ConfigError as refused:
            if refused.code != "WC334":
                raise
        overtaken = _holder(self._labels(client), STAGED) != version
        self._unlabel(client, once, version)
        if overtaken:
            raise self._overtaken()
        return version

    def fetch_staged(self, *, deadline: float) -> SecretDocument | None:
        """Read the pending version; a later `promote` takes this one or none."""
        client = self._opened_for_staging(deadline)
        self._chosen = _holder(self._labels(client), STAGED)
        return None if self._chosen is None else self._document(self._value(client, self._chosen))

    def promote(self, expected: str, *, deadline: float) -> None:
        """Move `AWSCURRENT` from the expected version to the pending one, then take our label away."""
        client = self._opened_for_staging(deadline)
        labels = self._labels(client)
        staged, current = _holder(labels, STAGED), _holder(labels, CURRENT)
        ours = self._chosen in (None, current) and _holder(labels, _PREVIOUS) == expected
        if staged is None and ours and self._newer(client, current, expected):
            return
        if staged is None:
            raise RotationError("nothing is staged", code="WC701", location=self._place(), hint="rotate stage first")
        if self._chosen not in (None, staged):
            raise self._overtaken()
        if staged != current:
            self._refuse_stale(client, staged, expected)
            self._make_current(client, staged, current, expected)
        self._unlabel(client, STAGED, staged)

    def rollback(self, expected: str, *, deadline: float) -> None:
        """Move `AWSCURRENT` from the expected version back to the previous one."""
        client = self._opened_for_staging(deadline)
        labels = self._labels(client)
        current, previous = _holder(labels, CURRENT), _holder(labels, _PREVIOUS)
        if previous == expected and self._newer(client, expected, current):
            return
        if previous is None:
            raise RotationError("there is no previous version", code="WC703", location=self._place(),
                                hint="stage and promote the old values instead")  # fmt: skip
        self._make_current(client, previous, current, expected)

    def previous(self, *, deadline: float) -> str | None:
        """Name the version that a rollback would bring back; None also where the current one came by a rollback."""
        client = self._client(deadline)
        labels = self._labels(client)
        previous = _holder(labels, _PREVIOUS)
        # What was rolled back from has the label too, but it is the younger one.
        return previous if self._newer(client, _holder(labels, CURRENT), previous) else None

    def discard(self, *, deadline: float) -> None:
        """Take our label away; AWS deletes a version without labels in time."""
        client = self._opened_for_staging(deadline)
        staged = _holder(self._labels(client), STAGED)
        if staged is not None:
            self._unlabel(client, STAGED, staged)

    def _opened_for_staging(self, deadline: float) -> Any:  # noqa: ANN401
        if self._options.version_id is not None or self._stage != CURRENT:
            raise RotationError("a pinned version, or another stage, cannot be rotated", code="WC705",
                                location=self._place(), hint="take version_id or stage out")  # fmt: skip
        return self._client(deadline)

    def _unlabel(self, client: Any, label: str, version: str) -> None:  # noqa: ANN401
        """Take a label away, if it is still there."""
        try:
            self._call(client, "update_secret_version_stage", _MOVE, VersionStage=label, RemoveFromVersionId=version)
        except ConfigError as refused:
            if refused.code != "WC334" or label in self._labels(client).get(version, ()):
                raise

    def _refuse_stale(self, client: Any, staged: str, current: str | None) -> None:  # noqa: ANN401
        """What was staged before the current version was made does not know what that changed."""
        if current is not None and staged != current and not self._newer(client, staged, current):
            raise RotationError("what is staged is older than the current version", code="WC750", location=self._place(),
                                hint="wise-creds rotate discard, then stage again")  # fmt: skip

    def _overtaken(self) -> RotationError:
        return RotationError("somebody else has staged or rotated meanwhile", code="WC702", location=self._place(),
                             hint="look at its status, then decide anew")  # fmt: skip

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
            raise self._overtaken()

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
