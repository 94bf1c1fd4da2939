"""`[NAMESPACE.operator]`: the identity of a person or job that may write, in place of the service's."""

from __future__ import annotations

from dataclasses import replace

from wise_creds._problems import unknown_key
from wise_creds._registry import find
from wise_creds.config import NamespaceConfig, SourceConfig
from wise_creds.shield import attempt, unexpected


def as_operator(config: NamespaceConfig) -> NamespaceConfig:
    """Put the operator's options over those of each source that knows them."""
    given = config.options.operator or {}
    known = {source.place: _known(source) for source in config.sources}
    every = sorted(set().union(*known.values()))
    sources = tuple(
        replace(source, options={**source.options, **{key: given[key] for key in given if key in known[source.place]}})
        for source in config.sources
    )
    wrong = tuple(unknown_key(key, every, f"{config.namespace}.operator") for key in given if key not in every)
    return replace(config, sources=sources, errors=(*config.errors, *wrong))


def _known(source: SourceConfig) -> set[str]:
    # A provider that is not there is the loader's to tell.
    model = attempt(lambda: find(source.provider).Options, unexpected).value
    return set() if model is None else set(model.model_fields)
