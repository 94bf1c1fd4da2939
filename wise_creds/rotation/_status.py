"""What a rotation has come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class RotationStatus:
    """
    The versions of the one source that is rotated.

    Attributes:
        namespace: `"sandbox"` or `"production"`.
        source: the store's name for the place.
        current: the version that services read.
        pending: the one that is staged beside it, or None.
        previous: the one that a rollback would bring back; None if there is none, if the current one came by a
            rollback, or if the provider cannot tell.
    """

    namespace: str
    source: str
    current: str
    pending: str | None = None
    previous: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Give it as JSON-safe data."""
        return asdict(self)
