"""The sources of a namespace as an operator finds them, and which of them is rotated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from wise_creds._engine import Job
from wise_creds._loader import Loader
from wise_creds._quiet import process_environ
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.config import ConfigSource, choose_namespace, namespace_config, read_config
from wise_creds.errors import CredentialsError, LoadError, RotationError, WiseCredsError, printable
from wise_creds.provider import SecretDocument, Staging
from wise_creds.rotation._operator import as_operator
from wise_creds.rotation._status import RotationStatus
from wise_creds.secret import Secret

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One source: what is current in it, what is staged, and why it cannot be rotated, if so."""

    number: int
    current: SecretDocument
    pending: SecretDocument | None = None
    refusal: RotationError | None = None

    def holds(self, name: str) -> bool:
        """Whether the field is this source's."""
        return name in self.current.fields or (self.pending is not None and name in self.pending.fields)

    def is_current(self) -> bool:
        """Whether what is staged is what is current."""
        return self.pending is not None and dict(self.pending.fields) == dict(self.current.fields)


class Sources(Loader):
    """
    The sources of one namespace, opened with the identity of `[NAMESPACE.operator]` and read once.

    Raises:
        ConfigError: no namespace, or no readable configuration.
        LoadError: the configuration is wrong, or a source cannot be read.
    """

    def __init__(self, namespace: str | None, config: ConfigSource) -> None:
        environ = process_environ()
        found = namespace_config(read_config(config, environ), choose_namespace(namespace, environ))
        super().__init__(as_operator(found), clock=SYSTEM_CLOCK, environ=environ)
        self._candidates: list[Candidate] = []

    def __enter__(self) -> Self:
        try:
            self._look()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def client_id(self) -> Secret:
        """
        Give the client ID, a staged one first.

        Raises:
            CredentialsError: there is none.
        """
        documents = [one.pending or one.current for one in self._candidates]
        found = next((document.fields["client_id"] for document in documents if "client_id" in document.fields), None)
        if found is None:
            raise self._retold([CredentialsError("is missing", code="WC401", location="client_id",
                                                 hint="add it to the store first")])[0]  # fmt: skip
        return found

    def chosen(self) -> Candidate:
        """
        Give the source that has something staged; where none has, the only one that can have it.

        Raises:
            RotationError: there is no such source, or several (WC731).
        """
        staged = [one for one in self._candidates if one.pending is not None]
        able = staged or [one for one in self._candidates if one.refusal is None]
        if not able and (refusal := self._candidates[0].refusal) is not None:
            raise refusal
        if len(able) > 1:
            what = "something is staged in several sources" if staged else "several sources could be rotated, none is"
            raise self.refused(f"{what}: {_places(able)}", "WC731",
                                "rotate one after the other, with a configuration that has only that source")  # fmt: skip
        return able[0]

    def staged(self) -> tuple[Candidate, SecretDocument]:
        """
        Give the source that has something staged, and that.

        Raises:
            RotationError: nothing is staged (WC701), or in several sources (WC731).
        """
        one = self.chosen() if any(one.pending for one in self._candidates) else None
        if one is None or one.pending is None:
            raise self.refused("nothing is staged", "WC701", "rotate stage first")
        return one, one.pending

    def holding(self, names: Iterable[str]) -> Candidate:
        """
        Give the one source that fields belong to.

        Raises:
            RotationError: they are not one source's (WC730), it cannot be rotated, or another has something staged.
        """
        owners = [one for one in self._candidates if any(one.holds(name) for name in names)]
        owners = owners or self._candidates
        if len(owners) > 1:
            raise self.refused(f"{', '.join(names)} do not belong to one source: {_places(owners)}", "WC730",
                                "stage, verify and promote what one source holds, then the rest")  # fmt: skip
        one = owners[0]
        if one.refusal is not None:
            raise one.refusal
        others = [other for other in self._candidates if other.pending is not None and other is not one]
        if others:
            raise self.refused(f"something is staged in another source: {_places(others)}", "WC731",
                                "promote that first")  # fmt: skip
        return one

    def ask(self, one: Candidate, step: Callable[..., T], *given: Any) -> T:  # noqa: ANN401  the step's own
        """
        Have a source's provider do something, until the deadline.

        Raises:
            ProviderUnavailableError: it did not come to an end; repeating it is safe.
        """
        source = self._sources[one.number]
        deadline = self._clock.boot() + self.config.options.deadline
        job: Job[T] = Job(lambda _job: step(*given, deadline=deadline), name="rotate", translate=source.translate)
        outcome = job.wait(self._clock, deadline)
        if outcome is None:
            job.abandon()
            late: WiseCredsError = self._too_late(source)
        elif isinstance(outcome.error, WiseCredsError):
            late = outcome.error
        else:
            return outcome.unwrap()
        raise self._retold([late])[0]

    def provider(self, one: Candidate) -> Any:  # noqa: ANN401  one that stages, and may have more
        """Give a source's provider."""
        return self._sources[one.number].provider

    def previous(self, one: Candidate) -> str | None:
        """Name the version that a rollback would bring back; None also where the provider cannot tell."""
        ask = getattr(self.provider(one), "previous", None)
        return None if ask is None else self.ask(one, ask)

    def told(self, one: Candidate) -> RotationStatus:
        """Look again and say what there is now."""
        provider = self.provider(one)
        current: SecretDocument = self.ask(one, provider.fetch)
        pending: SecretDocument | None = self.ask(one, provider.fetch_staged)
        return RotationStatus(
            namespace=self.config.namespace.value,
            source=self.config.expansion.as_written(current.location),
            current=current.version,
            pending=None if pending is None else pending.version,
            previous=self.previous(one),
        )

    def refused(self, message: str, code: str, hint: str, *, at: Candidate | None = None) -> RotationError:
        """Make an error about the namespace, or about one source."""
        place = None if at is None else at.current.location
        problem = RotationError(message, code=code, location=place, hint=hint)
        return self._retold([problem])[0]

    def _look(self) -> None:
        if self.errors:
            raise LoadError(self.errors)
        documents, problems = self._documents(self._clock.boot() + self.config.options.deadline)
        if problems:
            raise LoadError(self._retold(problems))
        self._candidates = [self._candidate(Candidate(number, one)) for number, one in enumerate(documents)]

    def _candidate(self, one: Candidate) -> Candidate:
        provider = self.provider(one)
        if not isinstance(provider, Staging):
            name = self._sources[one.number].config.provider
            return replace(one, refusal=self.refused(
                f"the provider {printable(name)} cannot stage", "WC732",
                "change the secret with its store's own tools; services notice the new version", at=one))  # fmt: skip
        try:
            return replace(one, pending=self.ask(one, provider.fetch_staged))
        except RotationError as refusal:
            if refusal.retryable:
                raise
            return replace(one, refusal=refusal)


def _places(several: Iterable[Candidate]) -> str:
    return ", ".join(one.current.location for one in several)
