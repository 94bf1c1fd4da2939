"""
The Lambda function for the four steps in which AWS Secrets Manager rotates a secret that a person issues.

Wise has no API for a new client secret or certificate: a person gets it from Developer Hub and stages it with
`wise-creds rotate stage`. A rotation takes over what is staged, or ends and says that nothing is. Name
`wise_creds_aws.rotation.handler` as the function's handler; docs/rotation-aws.md has the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from wise_creds import ConfigError, Credentials, LoadError, RotationError, WiseCredsError
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.config import NamespaceConfig, SourceConfig
from wise_creds.errors import printable
from wise_creds.shield import attempt, unexpected
from wise_creds.staged import check_with, configured, token_with
from wise_creds_aws._options import AwsOptions, reference
from wise_creds_aws._rotating import RotatingSecret

T = TypeVar("T")
log = logging.getLogger("wise_creds")


def handler(event: Mapping[str, Any], context: object, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """
    Do one step of a rotation, for the namespace of `$WISE_CREDS_CONFIG` that has the event's secret.

    A failure that a repetition would not mend ends the rotation: `AWSPENDING` is taken away, so that another one can
    begin. What is staged, and what is current, stay as they are.

    Args:
        event: `SecretId`, `ClientRequestToken`, `Step`, and between accounts `RotationToken`.
        context: Lambda's own; not used.
        clock: time.

    Raises:
        RotationError: not an event of a rotation (WC720), of no secret of ours (WC721), of a rotation that does not run
            (WC722, WC723), or out of turn (WC724); nothing is staged (WC701); somebody else was faster (WC702, WC750).
        ConfigError, LoadError: the configuration, or the pending material, is wrong.
        TokenError: Wise gives no token for it.
        ProviderError: AWS refuses, or cannot be reached.
    """
    del context
    step, rotation = _begun(event, clock)
    if rotation.is_current() and step != "finishSecret":
        return
    failed = None
    try:
        _STEPS[step](rotation)
    except WiseCredsError as problem:
        failed = problem
    if failed is None:
        log.info("%s: %s is done", rotation.config.namespace, step)
        return
    if not failed.retryable:
        rotation.end()
    raise failed


@dataclass(frozen=True, eq=False)
class _Rotation:
    """One rotation of one secret, which is one of its namespace's sources."""

    config: NamespaceConfig
    number: int
    secret: RotatingSecret
    token: str
    rotation_token: str | None = field(repr=False)
    clock: Clock

    def is_current(self) -> bool:
        return self._ask(self.secret.is_current, self.token)

    def create(self) -> None:
        self._ask(self.secret.create, self.token, self.rotation_token)

    def check(self) -> Credentials:
        pending = self._ask(self.secret.pending, self.token)
        return check_with(self.config, {self.number: pending}, clock=self.clock)

    def test(self) -> None:
        token_with(self.config, self.check(), clock=self.clock)

    def finish(self) -> None:
        if not self.is_current():
            self.check()
        self._ask(self.secret.finish, self.token)

    def end(self) -> None:
        try:
            if self._ask(self.secret.end, self.token):
                log.warning("the rotation has ended: version %s is no longer AWSPENDING", self.token)
        except WiseCredsError as problem:
            log.warning("AWSPENDING stays on version %s: %s", self.token, problem)

    def _ask(self, call: Callable[..., T], *given: str | None) -> T:
        deadline = self.clock.boot() + self.config.options.deadline
        outcome = attempt(partial(call, *given, deadline=deadline), unexpected)
        if isinstance(outcome.error, WiseCredsError):
            outcome.error.namespace = self.config.namespace.value
        return outcome.unwrap()


_STEPS: dict[str, Callable[[_Rotation], object]] = {
    "createSecret": _Rotation.create,
    "setSecret": _Rotation.check,  # Wise has nothing to set: that the value is whole is all there is to see to
    "testSecret": _Rotation.test,
    "finishSecret": _Rotation.finish,
}


def _begun(event: Mapping[str, Any], clock: Clock) -> tuple[str, _Rotation]:
    arn, token, step = (str(event.get(key) or "") for key in ("SecretId", "ClientRequestToken", "Step"))
    if step not in _STEPS or not token or reference(arn).account is None or reference(arn).ambiguous:
        raise RotationError("not an event of a rotation", code="WC720",
                            hint="SecretId (the full ARN), ClientRequestToken and one of AWS's four steps")  # fmt: skip
    config, number = _served(arn)
    if config.errors:
        raise LoadError(config.errors)
    secret = _opened(config, config.sources[number], arn, clock)
    return step, _Rotation(config, number, secret, token, event.get("RotationToken") or None, clock)


def _served(arn: str) -> tuple[NamespaceConfig, int]:
    """Find the namespace that has the secret, and which of its sources that is."""
    having = [
        (config, number)
        for config in configured()
        for number, source in enumerate(config.sources)
        if _names(source, arn)
    ]
    if len(having) != 1:
        what = "several sources of the configuration are" if having else "no source of the configuration is"
        raise RotationError(f"{what} this secret", code="WC721", location=printable(arn),
                            hint="name, region and account of one source must be the ARN's")  # fmt: skip
    return having[0]


def _names(source: SourceConfig, arn: str) -> bool:
    whole = reference(arn)
    named = reference(str(source.options.get("secret")))
    region = named.region or source.options.get("region") or whole.region
    account = named.account or source.options.get("account_id") or whole.account
    names = (whole.name, whole.name.rpartition("-")[0])  # AWS's six characters may be left out
    return source.provider == "aws" and named.name in names and (region, account) == (whole.region, whole.account)


def _opened(config: NamespaceConfig, source: SourceConfig, arn: str, clock: Clock) -> RotatingSecret:
    def made() -> RotatingSecret:
        options = AwsOptions.model_validate({**source.options, "secret": arn}, context={"base": config.base})
        return RotatingSecret(options, namespace=config.namespace, environ={}, clock=clock)

    wrong = ConfigError("an option of this source is wrong", code="WC105", location=source.place,
                        namespace=config.namespace, hint="wise-creds validate says which")  # fmt: skip
    return attempt(made, lambda _caught: wrong).unwrap()
