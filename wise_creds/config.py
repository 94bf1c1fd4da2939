"""
`wise-creds.toml`: non-secret data only, read into models, every problem at once.

A configuration is found through an argument (a path, or a mapping of the same form), else `$WISE_CREDS_CONFIG`, else
`./wise-creds.toml`.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wise_creds._expand import Expansion, retold
from wise_creds._problems import did_you_mean, model_problems, unknown_key
from wise_creds.credentials import Expectations
from wise_creds.errors import ConfigError, NamespaceError, Notice, WiseCredsError, printable
from wise_creds.namespace import Endpoints, Namespace, endpoints
from wise_creds.shield import errno_name

DEFAULT_FILE = "wise-creds.toml"
CONFIG_VARIABLE = "WISE_CREDS_CONFIG"
NAMESPACE_VARIABLE = "WISE_CREDS_NAMESPACE"
_LARGEST = 1_048_576

ConfigSource = str | Path | Mapping[str, Any] | None


class NamespaceOptions(BaseModel):
    """The keys of a namespace beside its sources."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str | None = None
    token_url: str | None = None
    allow_hosts: tuple[str, ...] = ()
    mtls: Literal["required", "off"] = "required"
    grant: Literal["client_credentials", "personal_token"] = "client_credentials"
    basic_auth: Literal["raw", "form"] = "raw"
    token_scope: Literal["thread", "process"] = "thread"  # noqa: S105  a scope, not a secret
    refresh_at: Annotated[float, Field(gt=0, lt=1)] = 0.8
    deadline: Annotated[float, Field(gt=0, le=600)] = 10.0
    watch: Annotated[float, Field(ge=0)] | None = None
    proxy: Annotated[str, Field(pattern=r"^http://[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}/?$")] | None = None
    expect_client_id: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{16,64}$")] | None = None
    expect_common_name: str | None = None
    expect_scope: tuple[str, ...] | None = None
    allow_readable_by: Literal["group", "all"] | None = None
    private_key_loading: Literal["memory", "encrypted-file"] = "memory"
    operator: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class SourceConfig:
    """One source: the provider's name, its raw options, and where they stand."""

    provider: str
    options: Mapping[str, Any] = field(repr=False)
    place: str
    beside: tuple[str, ...] = ()
    """The namespace's own keys, where they stand in the same table."""


@dataclass(frozen=True, eq=False)
class NamespaceConfig:
    """One namespace's part of a configuration, checked; `errors` says what is wrong with it."""

    namespace: Namespace
    options: NamespaceOptions
    endpoints: Endpoints
    sources: tuple[SourceConfig, ...]
    base: Path
    expansion: Expansion
    errors: tuple[WiseCredsError, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def mtls(self) -> bool:
        """Whether a client certificate is used."""
        return self.options.mtls == "required" and self.options.grant == "client_credentials"

    def expectations(self) -> Expectations:
        """Give what the configuration says about the material."""
        chosen = self.options
        return Expectations(
            namespace=self.namespace,
            grant=chosen.grant,
            mtls=self.mtls,
            basic_auth=chosen.basic_auth,
            expect_client_id=chosen.expect_client_id,
            expect_common_name=chosen.expect_common_name,
            key_loading=chosen.private_key_loading,
        )


@dataclass(frozen=True, eq=False)
class Config:
    """A configuration as it stands, not yet looked into."""

    tables: Mapping[str, Any] = field(repr=False)
    base: Path
    name: str
    writable_by_others: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    def namespaces(self) -> list[Namespace]:
        """Give the namespaces that have a table."""
        return [one for one in Namespace if one in self.tables]


def choose_namespace(namespace: str | None, environ: Mapping[str, str]) -> Namespace:
    """
    Give the namespace asked for, which is never guessed.

    Raises:
        ConfigError: none given, or an unknown one (WC108).
    """
    said = environ.get(NAMESPACE_VARIABLE) if namespace is None else namespace
    if not said:
        raise ConfigError("no namespace", code="WC108",
                          hint=f'say "sandbox" or "production", as the argument or in ${NAMESPACE_VARIABLE}')  # fmt: skip
    if said not in list(Namespace):
        raise ConfigError(f"no namespace is called {printable(said)}", code="WC108",
                          hint=did_you_mean(str(said), list(Namespace), 0.3) or "say sandbox or production")  # fmt: skip
    return Namespace(said)


def read_config(source: ConfigSource, environ: Mapping[str, str]) -> Config:
    """
    Read the configuration.

    Raises:
        ConfigError: it is missing or cannot be read (WC101), or is not TOML (WC102).
    """
    if isinstance(source, Mapping):
        return Config(source, Path.cwd(), "config", environ=environ)
    path = Path(source or environ.get(CONFIG_VARIABLE) or DEFAULT_FILE)
    name = printable(path)
    # The text is read and parsed in frames that are gone when an error is raised: it may hold what it must not hold.
    found = _parsed(path)
    if isinstance(found, int):
        raise ConfigError("not TOML", code="WC102", location=f"{name}:{found}", hint="see docs/configuration.md")
    if isinstance(found, str):
        raise ConfigError(f"the configuration cannot be read ({found})", code="WC101", location=name,
                          hint=f"name it with config=, --config or ${CONFIG_VARIABLE}; wise-creds init writes one")  # fmt: skip
    tables, mode = found
    return Config(tables, path.absolute().parent, name, bool(mode & stat.S_IWOTH), environ)


def _parsed(path: Path) -> tuple[dict[str, Any], int] | str | int:
    """Give the tables and the file's mode; or why it cannot be read; or the line that is not TOML."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO may not hold us up
        with open(fd, "rb") as file:  # noqa: PTH123  a descriptor
            mode = os.fstat(fd).st_mode
            raw = file.read(_LARGEST + 1) if stat.S_ISREG(mode) else None
    except OSError as caught:
        return errno_name(caught)
    except ValueError:
        return "a NUL in the path"
    if raw is None or len(raw) > _LARGEST:
        return "not a regular file of at most 1 MiB"
    try:
        return tomllib.loads(raw.decode("utf-8-sig")), mode
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as caught:
        found = re.search(r"at line (\d+)", str(caught))
        return int(found[1]) if found else 1


def unknown_tables(config: Config) -> list[ConfigError]:
    """Name the top-level keys that are no namespace."""
    return [
        ConfigError("unknown key", code="WC103", location=f"{config.name}: {printable(name)}",
                    hint=did_you_mean(str(name), list(Namespace)) or "a configuration has [sandbox] and [production]")
        for name in config.tables
        if name not in list(Namespace)
    ]  # fmt: skip


def namespace_config(config: Config, namespace: Namespace) -> NamespaceConfig:
    """Look into one namespace's table; nothing is raised, all problems are in the result."""
    errors: list[WiseCredsError] = list(unknown_tables(config))
    notices: list[Notice] = []
    place = f"{config.name}: {namespace}"
    expansion = Expansion(config.environ, errors.append)
    table = config.tables.get(namespace)
    if not isinstance(table, Mapping):
        what = "is missing" if table is None else "is not a table"
        errors.append(ConfigError(f"[{namespace}] {what}", code="WC109", location=config.name,
                                  hint=f"add [{namespace}] with a provider"))  # fmt: skip
        table = {}
    elif config.writable_by_others and namespace is Namespace.PRODUCTION:
        errors.append(ConfigError("others may write this file", code="WC111", location=config.name, hint="chmod o-w"))
    own = {key: value for key, value in table.items() if key in NamespaceOptions.model_fields}
    rest = {str(key): value for key, value in table.items() if key not in own}
    sources = _sources(rest, place, expansion, errors) if table or not errors else ()
    expanded = cast("dict[str, Any]", expansion.expand(own, place))
    options = NamespaceOptions()
    try:
        options = NamespaceOptions(**expanded)
    except ValidationError as invalid:
        errors += model_problems(invalid, NamespaceOptions, place)
    errors += _sandbox_only(namespace, options, place)

    def report(told: NamespaceError | Notice) -> None:
        if isinstance(told, Notice):
            notices.append(replace(told, location=f"{place}.{told.location}"))
        else:
            told.location = f"{place}.{told.location}"
            errors.append(told)

    where = endpoints(
        namespace,
        base_url=options.base_url,
        token_url=options.token_url,
        allow_hosts=options.allow_hosts,
        mtls=options.mtls == "required" and options.grant == "client_credentials",
        report=report,
    )
    if options.proxy and where.base_url.startswith("http:"):
        errors.append(ConfigError("a proxy would see the token of a plain http base_url", code="WC213",
                                  location=f"{place}.proxy", hint="use https, or no proxy"))  # fmt: skip
    return NamespaceConfig(
        namespace, options, where, sources, config.base, expansion,
        tuple(retold(errors, namespace=namespace, rewrite=expansion.as_written)),
        tuple(retold(notices, namespace=namespace, rewrite=expansion.as_written)),
    )  # fmt: skip


def _sandbox_only(namespace: Namespace, options: NamespaceOptions, place: str) -> list[WiseCredsError]:
    if namespace is Namespace.SANDBOX:
        return []
    return [
        NamespaceError(
            f'{key} = "{value}" is for sandbox only',
            code="WC209",
            location=f"{place}.{key}",
            hint="take the line out of [production]",
        )
        for key, value in (("mtls", "off"), ("private_key_loading", "encrypted-file"))
        if getattr(options, key) == value
    ]


def _sources(
    rest: dict[str, Any], place: str, expansion: Expansion, errors: list[WiseCredsError]
) -> tuple[SourceConfig, ...]:
    several = rest.pop("source", None)
    if several is None and "provider" in rest:
        beside = tuple(NamespaceOptions.model_fields)
        tables: list[tuple[Any, str]] = [(rest, place)]
    else:
        known = [*NamespaceOptions.model_fields, "provider", "source"]
        errors += [unknown_key(key, known, place) for key in rest]
        if not isinstance(several, list | tuple) or not several:
            errors.append(ConfigError("no source for the secret", code="WC110", location=place,
                                      hint='add provider = "files", or several [[NAMESPACE.source]] tables'))  # fmt: skip
            return ()
        beside = ()
        tables = [(table, f"{place}.source[{at}]") for at, table in enumerate(several)]
    found = []
    for table, where in tables:
        name = table.get("provider") if isinstance(table, Mapping) else None
        if not isinstance(name, str) or not name:
            errors.append(ConfigError("a source without provider", code="WC110", location=where,
                                      hint='add provider = "files" or another; wise-creds providers lists them'))  # fmt: skip
            continue
        options = {str(key): value for key, value in table.items() if key != "provider"}
        expanded = cast("dict[str, Any]", expansion.expand(options, where))
        found.append(SourceConfig(name, expanded, where, beside))
    return tuple(found)
