"""
For tests, ours and yours: a local Wise, a clock, and the contract of a provider.

`ProviderContract` and the fixtures need pytest; the rest does not.
"""

from typing import TYPE_CHECKING

from wise_creds.testing._clock import FakeClock
from wise_creds.testing._mockwise import MockWise
from wise_creds.testing._pki import Authority, Issued
from wise_creds.testing._server import FAULTS, Recorded

if TYPE_CHECKING:
    from wise_creds.testing._contract import ProviderContract

__all__ = ["FAULTS", "Authority", "FakeClock", "Issued", "MockWise", "ProviderContract", "Recorded"]


def __getattr__(name: str) -> object:
    if name != "ProviderContract":
        raise AttributeError(f"module 'wise_creds.testing' has no attribute {name!r}")
    from wise_creds.testing._contract import ProviderContract

    return ProviderContract
