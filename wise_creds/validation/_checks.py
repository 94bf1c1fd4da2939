"""The three levels of `validate`; each step is the one that `connect` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from wise_creds._generation import build
from wise_creds._loader import Loader
from wise_creds._material import utc
from wise_creds._quiet import Quiet, process_environ
from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.config import ConfigSource, choose_namespace, namespace_config, read_config, unknown_tables
from wise_creds.credentials import Credentials, client_id_pin
from wise_creds.errors import ConfigError, LoadError, WiseCredsError, printable
from wise_creds.token import scope_as_expected
from wise_creds.validation._report import Report, Result, from_error, from_notice

Level = Literal["config", "secrets", "live"]
_LEVELS: tuple[Level, ...] = ("config", "secrets", "live")
_STEPS = {
    "WC300": ("secrets", "the secret was not read"),
    "WC400": ("secrets", "the material was not checked"),
    "WC500": ("live", "no token was requested"),
}


def validate(
    namespace: str | Sequence[str] | None = None,
    *,
    config: ConfigSource = None,
    level: Level = "config",
    strict: bool = False,
    clock: Clock = SYSTEM_CLOCK,
    environ: Mapping[str, str] | None = None,
) -> Report:
    """
    Check a configuration and say everything that is wrong with it.

    Args:
        namespace: one, several, or None for all that the configuration has.
        config: as for `connect`.
        level: `"config"` opens no socket and reads no secret; `"secrets"` reads the sources and checks the material;
            `"live"` also requests a token, which is dropped.
        strict: warnings are findings.
        clock: time.
        environ: default: the process environment.

    Raises:
        ConfigError: an unknown namespace or level was asked for.
    """
    environ = process_environ() if environ is None else Quiet(environ)
    if level not in _LEVELS:
        raise ConfigError(f"no level is called {printable(level)}", code="WC112", hint="config, secrets or live")
    named = [namespace] if isinstance(namespace, str) else list(namespace or ())
    chosen = [choose_namespace(name, environ) for name in named]
    try:
        tables = read_config(config, environ)
    except ConfigError as problem:
        return Report((from_error(problem),), strict, unusable=True)
    results = [from_error(problem) for problem in unknown_tables(tables)]
    seen = {(result.source, result.message) for result in results}
    if not chosen and not tables.namespaces():
        results.append(Result(code="WC109", status="error", message="no namespace in it", source=tables.name,
                              hint="add [sandbox] or [production] with a provider"))  # fmt: skip
    for one in dict.fromkeys(chosen or tables.namespaces()):
        loader = Loader(namespace_config(tables, one), clock=clock, environ=environ)
        try:
            found = list(_steps(loader, level, clock, environ))
        finally:
            loader.close()
        results += [result for result in found if (result.source, result.message) not in seen]
    return Report(tuple(results), strict)


def _steps(loader: Loader, level: Level, clock: Clock, environ: Mapping[str, str]) -> Iterator[Result]:
    namespace = loader.config.namespace.value
    yield from map(from_error, loader.errors)
    if loader.errors:
        yield from map(from_notice, loader.config.notices)
        yield from _not_done(namespace, level, list(_STEPS), "the configuration has errors")
        return
    names = ", ".join(source.provider for source in loader.config.sources)
    yield Result(code="WC100", status="ok", message=f"configuration read: {printable(names)}", namespace=namespace)
    yield Result(code="WC200", status="ok", namespace=namespace,
                 message=f"{printable(loader.config.endpoints.base_url)} belongs to {namespace}")  # fmt: skip
    if level == "config":
        yield from map(from_notice, loader.config.notices)
        yield from _not_done(namespace, level, list(_STEPS), "")
        return
    # As a watcher would; what a source has to say about that comes with its document.
    loader.probe(clock.boot() + loader.config.options.deadline)
    try:
        fields = loader.read()
    except LoadError as failed:
        yield from map(from_error, failed.errors)
        yield from _not_done(namespace, level, ["WC400", "WC500"], "the secret could not be read")
        return
    yield Result(code="WC300", status="ok", message=f"{len(fields.values)} fields read", namespace=namespace,
                 source=", ".join(fields.sources))  # fmt: skip
    checked = loader.check(fields)
    yield from map(from_error, checked.errors)
    yield from map(from_notice, checked.notices)
    if checked.credentials is None:
        yield from _not_done(namespace, level, ["WC500"], "the material has errors")
        return
    yield Result(code="WC400", status="ok", message=_material(checked.credentials, clock), namespace=namespace)
    if level == "secrets":
        yield from _not_done(namespace, level, ["WC500"], "")
        return
    yield _live(loader, checked.credentials, clock, environ)


def _live(loader: Loader, credentials: Credentials, clock: Clock, environ: Mapping[str, str]) -> Result:
    config = loader.config
    try:
        cache = build(0, credentials, config, clock=clock, environ=environ).cache
        token = cache.obtain()
    except WiseCredsError as problem:
        return from_error(problem)
    cache.close()
    if not scope_as_expected(token, config.options.expect_scope):
        return Result(code="WC520", status="error", message="the token's scope is not the one expected",
                      namespace=config.namespace.value, source="expect_scope", hint="compare with Developer Hub")  # fmt: skip
    return Result(code="WC500", status="ok", namespace=config.namespace.value,
                  message=f"token received and dropped; it would have lived {token.remaining() / 3600:.1f} h")  # fmt: skip


def _material(credentials: Credentials, clock: Clock) -> str:
    facts = ["material complete"]
    certificate = credentials.certificate
    if certificate is not None:
        days = certificate.days_left(utc(clock.wall()))
        facts.append(f"certificate {certificate.key_type}, {days} days left, sha256 {certificate.fingerprint[:16]}")
    if credentials.client_id is not None:
        facts.append(f'expect_client_id = "{client_id_pin(credentials.client_id)}"')
    return "; ".join(facts)


def _not_done(namespace: str, level: Level, codes: list[str], reason: str) -> Iterator[Result]:
    """Show what was left out: skipped within the level asked for, unverified beyond it."""
    for code in codes:
        needed, message = _STEPS[code]
        asked = _LEVELS.index(level) >= _LEVELS.index(needed)
        if asked:
            yield Result(code=code, status="skipped", message=f"{message}: {reason}", namespace=namespace)
        else:
            yield Result(code=code, status="unverified", asked=False, message=message, namespace=namespace,
                         hint=f"--{needed}")  # fmt: skip
