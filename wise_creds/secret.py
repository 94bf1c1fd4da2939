"""A value that does not show itself: the one type that carries a secret through wise-creds."""

from __future__ import annotations

import hmac
import sys
from contextvars import ContextVar
from typing import NoReturn, final

from wise_creds.errors import CredentialsError, printable

MASK = "**********"

# True while the shield works; it lives on the ground floor because `reveal` must know it (no audit event inside).
inside_shield: ContextVar[bool] = ContextVar("wise_creds_inside_shield", default=False)


@final
class Secret:
    """
    Hold a secret value so that nothing but `reveal` and `reveal_bytes` gives it out.

    `repr`, `str`, `format`, `vars`, `inspect.getmembers` and tracebacks show a mask. A Secret cannot be pickled or
    hashed; copies are the same object, so `dataclasses.asdict` works and stays masked. Two Secrets compare in constant
    time. What it cannot stop: `gc.get_referents`, a debugger, and whatever is done with a revealed value.

    Args:
        value: the text (kept as UTF-8) or the bytes.
        name: what the value is, for `repr` and for the audit event; never part of the value.
    """

    __slots__ = ("_name", "_value")

    def __new__(cls, value: str | bytes, *, name: str = "") -> Secret:
        """Take the value once; there is no way to change it later."""
        if not isinstance(value, str | bytes):
            raise TypeError("a Secret holds str or bytes")
        self = super().__new__(cls)
        _VALUE.__set__(self, value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        _NAME.__set__(self, name)
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("Secret cannot be subclassed: a subclass could show the value")

    @property
    def name(self) -> str:
        """What the value is, for messages."""
        name: str = _NAME.__get__(self)
        return name

    def reveal(self) -> str:
        """
        Give the value as text.

        Raises:
            CredentialsError: the bytes are not UTF-8 (WC405).
        """
        raw = self.reveal_bytes()
        text = raw.decode("utf-8", "replace")
        if text.encode("utf-8") == raw:
            return text
        del raw, text
        raise CredentialsError(f"{printable(self.name) or 'the value'} is not UTF-8 text", code="WC405",
                               hint="reveal_bytes() gives it as it is")  # fmt: skip

    def reveal_bytes(self) -> bytes:
        """Give the value as bytes; raises the audit event `wise_creds.reveal` with the name outside the shield."""
        if not inside_shield.get():
            sys.audit("wise_creds.reveal", self.name)
        value: bytes = _VALUE.__get__(self)
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_VALUE.__get__(self), _VALUE.__get__(other))

    __hash__ = None  # type: ignore[assignment]  # a hash is a fingerprint that dictionaries keep

    def __repr__(self) -> str:
        return f"<Secret {printable(self.name)} {MASK}>" if self.name else f"<Secret {MASK}>"

    def __str__(self) -> str:
        return MASK

    def __format__(self, _spec: str) -> str:
        return MASK

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Secret is never pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


# The slots keep working through these two descriptors, while no attribute name leads to them any more.
_VALUE = Secret.__dict__["_value"]
_NAME = Secret.__dict__["_name"]
del Secret._value, Secret._name  # type: ignore[attr-defined]  # noqa: SLF001
