"""Providers by name: only the one that is asked for is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

from wise_creds._problems import did_you_mean
from wise_creds.errors import PluginError, printable
from wise_creds.provider import Provider
from wise_creds.shield import described

GROUP = "wise_creds.providers"


def installed() -> dict[str, list[EntryPoint]]:
    """Give all entry points by name, without loading any."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def find(name: str) -> type[Provider]:
    """
    Load the provider of that name.

    Raises:
        PluginError: unknown (WC121), offered twice (WC122), its SDK is missing (WC123), broken (WC124).
    """
    offers = entry_points(group=GROUP, name=name)
    if not offers:
        known = sorted(installed())
        raise PluginError(
            f"no provider is called {printable(name)}",
            code="WC121",
            hint=did_you_mean(name, known) or f"installed: {', '.join(map(printable, known))}",
        )
    if len({entry.value for entry in offers}) > 1:
        raise PluginError(
            f"several distributions offer a provider called {printable(name)}: {owners(offers)}",
            code="WC122",
            hint="uninstall all but one of them",
        )
    entry = next(iter(offers))
    problem: PluginError | None = None
    loaded: object = None
    try:
        loaded = entry.load()
    except Exception as caught:  # noqa: BLE001  a plug-in's import may fail in any way
        problem = missing_sdk(entry, caught) or PluginError(
            f"provider {printable(name)} of {owners([entry])} cannot be loaded: {described(caught)}",
            code="WC124",
            hint="reinstall or report it",
        )
    if problem is None and not (isinstance(loaded, type) and hasattr(loaded, "Options") and hasattr(loaded, "fetch")):
        problem = PluginError(
            f"{printable(entry.value)} of {owners([entry])} is not a provider: it needs Options, fetch, probe and close",
            code="WC124",
            hint="see docs/writing-a-provider.md",
        )
    if problem is not None:
        raise problem
    provider: type[Provider] = loaded  # type: ignore[assignment]  # looked at just above
    return provider


def sdk_translator(name: str) -> Callable[[BaseException], PluginError | None]:
    """Make the function that turns a late `import` of a missing SDK into a PluginError with the install command."""

    def translate(caught: BaseException) -> PluginError | None:
        return next((missing_sdk(entry, caught) for entry in entry_points(group=GROUP, name=name)), None)

    return translate


def missing_sdk(entry: EntryPoint, caught: BaseException) -> PluginError | None:
    """Say what to install, if that is the matter."""
    if not isinstance(caught, ModuleNotFoundError):
        return None
    extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
    return PluginError(
        f"provider {printable(entry.name)} needs the module {printable(caught.name)}, which is not installed",
        code="WC123",
        hint=f"pip install '{owners([entry])}{extras}'",
    )


def owners(entries: Iterable[EntryPoint]) -> str:
    """Name the distributions behind entry points."""
    return ", ".join(sorted({printable(entry.dist.name) if entry.dist else "?" for entry in entries}))
