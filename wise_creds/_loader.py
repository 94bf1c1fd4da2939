"""From a namespace's configuration to checked credentials: all sources in parallel, under one deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from wise_creds._engine import Job
from wise_creds._expand import retold
from wise_creds._problems import model_problems
from wise_creds._registry import find, sdk_translator
from wise_creds.clock import Clock
from wise_creds.config import NamespaceConfig, SourceConfig
from wise_creds.credentials import Checked, Credentials, Fields, check
from wise_creds.errors import (
    CredentialsError,
    LoadError,
    Notice,
    PluginError,
    ProviderError,
    ProviderUnavailableError,
    WiseCredsError,
)
from wise_creds.provider import Provider, SecretDocument
from wise_creds.secret import Secret
from wise_creds.shield import Translate, attempt, described, unexpected

T = TypeVar("T")
log = logging.getLogger("wise_creds")

_WATCH = 60.0  # seconds between two probes of a source that does not say
_READINGS = 3  # of several sources that should come from one point in time


@dataclass(frozen=True, eq=False)
class _Source:
    provider: Provider
    config: SourceConfig
    translate: Translate


class Loader:
    """
    The opened sources of one namespace.

    Args:
        config: what to load; its errors, and those of the plug-ins, are in `errors`.
        clock: time.
        environ: the process environment, for the providers.
    """

    def __init__(self, config: NamespaceConfig, *, clock: Clock, environ: Mapping[str, str]) -> None:
        self.config = config
        self._clock = clock
        self._sources: list[_Source] = []
        problems: list[WiseCredsError] = []
        for source in config.sources:
            opened = attempt(partial(self._opened, source, environ), partial(_not_opened, source))
            if opened.error is None:
                self._sources.append(opened.unwrap())
            elif isinstance(opened.error, LoadError):
                problems += opened.error.errors
            else:
                problems.append(_placed(opened.error, f"{source.place}.provider"))
        self.errors = (*config.errors, *self._retold(problems))

    def load(self) -> tuple[Credentials, tuple[Notice, ...]]:
        """
        Read, join and check.

        Raises:
            LoadError: everything that is wrong.
        """
        checked = self.check(self.read())
        if checked.credentials is None:
            raise LoadError(checked.errors)
        return checked.credentials, checked.notices

    def read(self) -> Fields:
        """
        Read all sources, in parallel, until the deadline; again if one has moved on while others were read.

        Raises:
            LoadError: the configuration is wrong, or a source failed.
        """
        if self.errors:
            raise LoadError(self.errors)
        deadline = self._clock.boot() + self.config.options.deadline
        for _ in range(_READINGS):
            documents, problems = self._documents(deadline)
            if problems or len(documents) == 1:
                break
            versions, unknown = self.probe(deadline)
            pairs = zip(versions, documents, strict=True)
            if unknown is None and all(version in (None, document.version) for version, document in pairs):
                break
        else:
            problems = [unknown or ProviderUnavailableError(
                "the sources changed whenever they were read", code="WC314", location=documents[0].location,
                hint="try again when the rotation is over",
            )]  # fmt: skip
        fields, twice = self._joined(documents)
        if problems or twice:
            raise LoadError(self._retold([*problems, *twice]))
        return fields

    def interval(self) -> float:
        """Give the seconds between two probes: what the configuration says, else what the quickest source is good for."""
        chosen = self.config.options.watch
        if chosen is not None:
            return chosen
        return min((getattr(source.provider, "watch", _WATCH) for source in self._sources), default=_WATCH)

    def probe(self, deadline: float | None = None) -> tuple[list[str | None], WiseCredsError | None]:
        """Probe all sources, in parallel: versions, None where only a read can tell, and the first failure."""
        if deadline is None:
            deadline = self._clock.boot() + self.config.options.deadline
        versions, problems = self._asked("probe", lambda source: source.provider.probe(deadline=deadline), deadline)
        return versions, next(iter(self._retold(problems)), None)

    def _documents(self, deadline: float) -> tuple[list[SecretDocument], list[WiseCredsError]]:
        found, problems = self._asked("load", lambda source: source.provider.fetch(deadline=deadline), deadline)
        return [document for document in found if document is not None], problems

    def _asked(
        self, what: str, call: Callable[[_Source], object], deadline: float
    ) -> tuple[list[Any], list[WiseCredsError]]:
        """Ask all sources, in parallel: what each gave, None where it failed, and the failures."""
        jobs = [
            Job(partial(_called, call, source), name=f"{what} {source.config.provider}", translate=source.translate)
            for source in self._sources
        ]
        given: list[Any] = []
        problems: list[WiseCredsError] = []
        for source, job in zip(self._sources, jobs, strict=True):
            outcome = job.wait(self._clock, deadline)
            value = None
            if outcome is None:
                job.abandon()
                problems.append(self._too_late(source))
            elif isinstance(outcome.error, WiseCredsError):
                problems.append(outcome.error)
            else:
                value = outcome.unwrap()
            given.append(value)
        return given, problems

    def check(self, fields: Fields) -> Checked:
        """Judge the fields; nothing is raised for what is wrong with them."""
        outcome = attempt(lambda: check(fields, self.config.expectations(), now=self._clock.wall()), unexpected)
        if isinstance(outcome.error, WiseCredsError):
            return Checked(None, (CredentialsError(outcome.error.message),), ())
        checked = outcome.unwrap()
        notices = (*self.config.notices, *self._retold([*fields.notices, *checked.notices]))
        return replace(checked, errors=tuple(self._retold(checked.errors)), notices=notices)

    def close(self) -> None:
        """Let the providers go."""
        for source in self._sources:
            attempt(source.provider.close, source.translate)

    def _opened(self, source: SourceConfig, environ: Mapping[str, str]) -> _Source:
        plugin = find(source.provider)
        given = dict(source.options)
        shared = self.config.options.allow_readable_by
        if shared and "allow_readable_by" in plugin.Options.model_fields:
            given.setdefault("allow_readable_by", shared)
        options = plugin.Options.model_validate(given, context={"base": self.config.base})
        provider = plugin(options, namespace=self.config.namespace, environ=environ, clock=self._clock)
        return _Source(provider, source, _translator(source))

    def _joined(self, documents: list[SecretDocument]) -> tuple[Fields, list[WiseCredsError]]:
        values: dict[str, Secret] = {}
        places: dict[str, str] = {}
        twice: list[WiseCredsError] = []
        for document in documents:
            for name, value in document.fields.items():
                place = f"{document.location}: {name}"
                if name in values:
                    twice.append(CredentialsError(f"also given by {places[name]}", code="WC311", location=place,
                                                  hint="name the fields of each source with fields = { ... }"))  # fmt: skip
                values[name], places[name] = value, place
        rewrite = self.config.expansion.as_written
        fields = Fields(
            values,
            {name: rewrite(place) for name, place in places.items()},
            tuple(name for document in documents for name in document.names),
            "+".join(document.version for document in documents),
            tuple(rewrite(document.location) for document in documents),
            tuple(notice for document in documents for notice in document.notices),
        )
        return fields, twice

    def _too_late(self, source: _Source) -> ProviderUnavailableError:
        return ProviderUnavailableError(
            f"{source.config.provider} did not answer within {self.config.options.deadline:g} s",
            code="WC304",
            location=source.config.place,
            hint="is the store reachable from here? a larger deadline gives it longer",
        )

    def _retold(self, told: list[T] | tuple[T, ...]) -> list[T]:
        return retold(told, namespace=self.config.namespace, rewrite=self.config.expansion.as_written)  # type: ignore[type-var]


def _not_opened(source: SourceConfig, caught: BaseException) -> WiseCredsError:
    if isinstance(caught, ValidationError):
        model = find(source.provider).Options
        return LoadError(model_problems(caught, model, source.place, beside=source.beside))
    return PluginError(f"the provider cannot be set up: {described(caught)}", code="WC124",
                       hint="please report this to the provider's authors")  # fmt: skip


def _placed(error: BaseException, place: str) -> WiseCredsError:
    if not isinstance(error, WiseCredsError):
        raise error
    error.location = place
    return error


def _called(call: Callable[[_Source], object], source: _Source, _job: Job[object]) -> object:
    return call(source)


def _translator(source: SourceConfig) -> Translate:
    missing = sdk_translator(source.provider)

    def translate(caught: BaseException) -> WiseCredsError:
        return missing(caught) or ProviderError(
            f"the provider failed: {described(caught)}", code="WC399", location=source.place,
            hint="please report this to the provider's authors",
        )  # fmt: skip

    return translate


def announce(notices: tuple[Notice, ...]) -> None:
    """Log what is worth saying about a load."""
    for notice in notices:
        log.log(logging.WARNING if notice.level == "warning" else logging.INFO, "%s", notice)
