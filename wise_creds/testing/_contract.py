"""The test class that every provider subclasses, ours and foreign ones alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from wise_creds.clock import SYSTEM_CLOCK, Clock
from wise_creds.errors import SecretNotFoundError
from wise_creds.namespace import Namespace
from wise_creds.provider import Provider, SecretDocument
from wise_creds.secret import Secret


class ProviderContract:
    """
    What the core relies on. A subclass named `Test…` sets `provider_class` and overrides the four hooks below.

    `values` are made up by the test: each must be at least 8 characters long, for they are searched in every text.
    """

    provider_class: type[Provider]
    clock: Clock = SYSTEM_CLOCK

    def options(self, values: dict[str, str]) -> dict[str, Any]:
        """Put the values into the store and give the options that lead to them; hook."""
        raise NotImplementedError

    def change(self, values: dict[str, str]) -> None:
        """Replace the values in the store; hook."""
        raise NotImplementedError

    def absent(self) -> dict[str, Any]:
        """Give options that lead to nothing; hook."""
        raise NotImplementedError

    def provider(self, options: dict[str, Any]) -> Provider:
        """Make the provider as the core does."""
        chosen = self.provider_class.Options.model_validate(options, context={"base": "."})
        return self.provider_class(chosen, namespace=Namespace.SANDBOX, environ={}, clock=self.clock)

    def fetch(self, provider: Provider) -> SecretDocument:
        """Fetch with ten seconds to go."""
        return provider.fetch(deadline=self.clock.boot() + 10)

    @pytest.fixture
    def values(self) -> dict[str, str]:
        """Made-up fields."""
        return {"client_id": "made-up-client-id", "client_secret": "made-up-client-secret"}

    def test_every_field_is_a_secret_with_the_stored_value(self, values: dict[str, str]) -> None:
        """What was put in comes out, masked."""
        document = self.fetch(self.provider(self.options(values)))
        assert all(isinstance(value, Secret) for value in document.fields.values())
        assert {name: document.fields[name].reveal() for name in values} == values

    def test_nothing_shows_a_value(self, values: dict[str, str]) -> None:
        """Neither the document nor its parts nor the provider show what they hold."""
        provider = self.provider(self.options(values))
        document = self.fetch(provider)
        shown = f"{document!r} {document.location} {document.version} {provider!r} {vars(provider)!r}"
        assert [name for name, value in values.items() if value in shown] == []

    def test_the_version_stays_while_the_content_does(self, values: dict[str, str]) -> None:
        """An unchanged secret fires nothing."""
        provider = self.provider(self.options(values))
        assert self.fetch(provider).version == self.fetch(provider).version

    def test_the_version_changes_with_the_content(self, values: dict[str, str]) -> None:
        """A rotation is noticed."""
        provider = self.provider(self.options(values))
        before = self.fetch(provider).version
        self.change({**values, "client_secret": "another-made-up-secret"})
        after = self.fetch(provider)
        assert (after.version != before, after.fields["client_secret"].reveal()) == (True, "another-made-up-secret")

    def test_the_probe_gives_the_version_or_nothing(self, values: dict[str, str]) -> None:
        """The cheap look and the read agree."""
        provider = self.provider(self.options(values))
        probed = provider.probe(deadline=self.clock.boot() + 10)
        assert probed in (None, self.fetch(provider).version)

    def test_what_is_not_there_is_not_found(self) -> None:
        """Absent is an error of its own, with a place and a code."""
        with pytest.raises(SecretNotFoundError) as caught:
            self.fetch(self.provider(self.absent()))
        assert caught.value.location
        assert caught.value.code.startswith("WC3")

    def test_it_closes_twice(self, values: dict[str, str]) -> None:
        """Closing is harmless, also after a copy was made of its document."""
        provider = self.provider(self.options(values))
        copy.deepcopy(dict(self.fetch(provider).fields))
        provider.close()
        provider.close()
