"""Reading one secret of AWS Secrets Manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from wise_creds import ConfigError, CredentialsError, Namespace, Notice, Secret, SecretDocument, WiseCredsError
from wise_creds.clock import Clock
from wise_creds.documents import pick_fields, read_document
from wise_creds.errors import AccessDeniedError, printable
from wise_creds_aws import _client
from wise_creds_aws._errors import made, translated
from wise_creds_aws._options import AwsOptions, reference

CURRENT = "AWSCURRENT"
_LARGEST = 65_536  # bytes: AWS's own limit
_ROLE_MARGIN = 300.0  # seconds before their end at which a role's credentials are got anew


class AwsReader:
    """
    The reading half of the provider.

    Args:
        options: `AwsOptions`.
        namespace: a profile is for sandbox only.
        environ: for `$AWS_REGION`; boto3 reads the identity from the process environment itself.
        clock: time, for the deadline.

    Raises:
        ConfigError: a profile in production (WC209).
    """

    Options = AwsOptions
    watch = 300.0

    def __init__(self, options: AwsOptions, *, namespace: Namespace, environ: Mapping[str, str], clock: Clock) -> None:
        if options.profile is not None and namespace is Namespace.PRODUCTION:
            raise ConfigError("profile is for sandbox only", code="WC209", location="profile",
                              hint="give the service a role; a profile belongs to one person's machine")  # fmt: skip
        self._options = options
        self._reference = reference(options.secret)
        self._clock, self._environ = clock, environ
        self._roles: tuple[float, Any] | None = None
        self._blind = False

    def fetch(self, *, deadline: float, version: str | None = None) -> SecretDocument:
        """Read the value of the stage, of the pinned version, or of the version named."""
        return self._document(self._value(self._client(deadline), version))

    def probe(self, *, deadline: float) -> str | None:
        """Give the version ID that has the stage, by `DescribeSecret`; where that is denied, by a read."""
        if self._options.version_id is not None:
            return self._options.version_id
        client = self._client(deadline)
        if not self._blind:
            try:
                return self._labelled(client, self._stage)
            except AccessDeniedError as problem:
                if problem.code != "WC302":
                    raise
                self._blind = True
        version: str = self._value(client, None)["VersionId"]
        return version

    def close(self) -> None:
        """Forget the credentials of roles."""
        self._roles = None

    @property
    def _stage(self) -> str:
        return self._options.stage or CURRENT

    def _place(self, region: str | None = None, account: str | None = None) -> str:
        where = self._reference
        known = (region or where.region or self._options.region, account or where.account or self._options.account_id)
        return printable(":".join(("aws", *(part or "?" for part in known), where.name)))

    def _value(self, client: Any, version: str | None) -> dict[str, Any]:  # noqa: ANN401
        wanted = version or self._options.version_id
        chosen = {"VersionStage": self._stage} if wanted is None else {"VersionId": wanted}
        answer = self._call(client, "get_secret_value", "secretsmanager:GetSecretValue", **chosen)
        if not isinstance(answer.get("VersionId"), str):
            raise self._malformed()
        return answer

    def _labels(self, client: Any) -> dict[str, list[str]]:  # noqa: ANN401
        answer = self._call(client, "describe_secret", "secretsmanager:DescribeSecret")
        if answer.get("DeletedDate") is not None:  # its labels are still there, its values are not
            raise made("deleted", self._place(client.meta.region_name))
        return answer.get("VersionIdsToStages") or {}

    def _labelled(self, client: Any, label: str) -> str:  # noqa: ANN401
        found = next((version for version, labels in self._labels(client).items() if label in labels), None)
        if found is None:
            raise made("stage", self._place())
        return found

    def _call(self, client: Any, method: str, action: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        region = client.meta.region_name
        answer = self._told(
            lambda: getattr(client, method)(SecretId=self._options.secret, **arguments), action, self._place(region)
        )
        found = reference(str(answer.get("ARN")))
        if found.account is None:
            raise self._malformed()
        pinned = self._options.account_id
        if pinned is not None and found.account != pinned:
            raise ConfigError(f"the secret is in account {found.account}, not in {pinned}", code="WC328",
                              location=self._place(region, found.account), hint="whose credentials are these?")  # fmt: skip
        self._reference = type(found)(self._reference.name, found.region, found.account)
        return dict(answer)

    def _malformed(self) -> WiseCredsError:
        return made("foreign", self._place())

    def _document(self, answer: dict[str, Any]) -> SecretDocument:
        options, where = self._options, self._place()
        text, binary = answer.get("SecretString"), answer.get("SecretBinary")
        raw = text.encode() if isinstance(text, str) else binary
        if not isinstance(raw, bytes):
            raise self._malformed()
        if len(raw) > _LARGEST:
            raise CredentialsError("larger than 64 KiB", code="WC308", location=where, hint="is it the right secret?")
        names: tuple[str, ...] = ()
        if options.field is not None or not isinstance(text, str):
            name = options.field or "pkcs12"
            fields = {name: Secret(raw, name=name)}
        else:
            fields, names = pick_fields(read_document(raw, "JSON", location=where), options.fields, location=where)
        made = answer.get("CreatedDate")
        return SecretDocument(
            fields=fields,
            version=answer["VersionId"],
            location=where,
            changed_at=made if isinstance(made, datetime) else None,
            notices=self._notices(where),
            names=names,
        )

    def _notices(self, where: str) -> tuple[Notice, ...]:
        notices = []
        if reference(self._options.secret).ambiguous:
            notices.append(Notice(code="WC330", location=where, message="AWS may take this name for another secret's",
                                  hint="give the full ARN, its six last characters included"))  # fmt: skip
        if self._blind:
            notices.append(Notice(code="WC332", location=where, hint="allow secretsmanager:DescribeSecret",
                                  message="the version cannot be probed; each look reads the secret"))  # fmt: skip
        return tuple(notices)

    @staticmethod
    def _told(call: Callable[[], Any], action: str, place: str) -> Any:  # noqa: ANN401
        problem = None
        try:
            return call()
        except Exception as caught:
            problem = translated(caught, action=action, place=place)
            if problem is None:
                raise
        raise problem

    def _client(self, deadline: float) -> Any:  # noqa: ANN401
        return self._told(lambda: self._opened(deadline), "sts:AssumeRole", self._place())

    def _opened(self, deadline: float) -> Any:  # noqa: ANN401
        options, left = self._options, max(0.1, deadline - self._clock.boot())
        session = options.session or _client.session(options, left, profile_name=options.profile)
        region = (
            options.region or reference(options.secret).region or session.region_name or self._environ.get("AWS_REGION")
        )
        if options.roles:
            session = self._assumed(session, region, left)
        return _client.make(session, "secretsmanager", options, region=region, left=left)

    def _assumed(self, session: Any, region: str | None, left: float) -> Any:  # noqa: ANN401
        if self._roles is not None and self._clock.wall() < self._roles[0] - _ROLE_MARGIN:
            return self._roles[1]
        ends = 0.0
        for number, role in enumerate(self._options.roles, 1):
            sts = _client.make(session, "sts", self._options, region=region, left=left)
            last = number == len(self._options.roles) and self._options.external_id is not None
            external = {"ExternalId": self._options.external_id} if last else {}
            try:
                answer = sts.assume_role(RoleArn=role, RoleSessionName=self._options.session_name, **external)
            except KeyError:  # botocore's, over XML of another shape
                answer = {}
            given = answer.get("Credentials") or {}
            if not {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"} <= given.keys():
                raise made("foreign", self._place(region))
            session = _client.session(
                self._options,
                left,
                aws_access_key_id=given["AccessKeyId"],
                aws_secret_access_key=given["SecretAccessKey"],
                aws_session_token=given["SessionToken"],
            )
            ends = given["Expiration"].timestamp()
        self._roles = (ends, session)
        return session
