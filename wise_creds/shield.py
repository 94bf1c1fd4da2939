"""
The shield around every touch of an SDK, a payload or a header.

Inside it no foreign log record and no telemetry span is made, and no exception leaves: a failure comes back as one of
our errors, and the original, whose frames and attributes may hold a secret, is wiped. The caller raises ours outside
any `except` block, so it has neither cause nor context.
"""

from __future__ import annotations

import functools
import logging
import re
import socket
import ssl
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar, cast

from wise_creds.errors import WiseCredsError, printable
from wise_creds.secret import inside_shield

T = TypeVar("T")
P = ParamSpec("P")
Translate = Callable[[BaseException], BaseException | None]

EVERY_LOGGER = ("",)
HTTP_LOGGERS = ("httpx", "httpcore", "hpack", "h2", "h11", "anyio")
# Loggers are silenced one by one, because a filter on a parent never sees what its children pass up. Those that an SDK
# makes at its first use would come too late: they are made here, before it does.
_BORN_LATE = (
    "boto3.resources", "botocore.auth", "botocore.awsrequest", "botocore.client", "botocore.configprovider",
    "botocore.credentials", "botocore.endpoint", "botocore.endpoint_provider", "botocore.handlers", "botocore.hooks",
    "botocore.httpchecksum", "botocore.httpsession", "botocore.loaders", "botocore.parsers", "botocore.regions",
    "botocore.retries", "botocore.retries.special", "botocore.retries.standard", "botocore.retryhandler",
    "botocore.session", "botocore.signers", "botocore.tokens", "botocore.utils", "h11", "h2", "hpack.hpack",
    "hpack.huffman", "hpack.table", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy",
    "httpcore.socks", "httpx", "hvac", "hvac.adapters", "requests", "s3transfer", "urllib3.connection",
    "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry",
)  # fmt: skip

_closed: ContextVar[tuple[str, ...]] = ContextVar("wise_creds_closed_loggers", default=())


class _Gate(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.name.startswith(_closed.get())


_GATE = _Gate()


def _close_loggers(closed: tuple[str, ...]) -> None:
    for name in _BORN_LATE:
        if name.startswith(closed):
            logging.getLogger(name).addFilter(_GATE)
    if closed != EVERY_LOGGER:
        return
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] != "wise_creds":
            logger.addFilter(_GATE)
    logging.root.addFilter(_GATE)


def _no_spans() -> AbstractContextManager[object]:
    """Suppress OpenTelemetry's instrumentation, where the application has loaded it."""
    module = sys.modules.get("opentelemetry.instrumentation.utils")
    suppress = getattr(module, "suppress_instrumentation", nullcontext)
    return cast("AbstractContextManager[object]", suppress())


@contextmanager
def _closed_doors(loggers: tuple[str, ...]) -> Iterator[None]:
    _close_loggers(loggers)
    inside, closed = inside_shield.set(True), _closed.set(loggers)
    try:
        with _no_spans():
            yield
    finally:
        _closed.reset(closed)
        inside_shield.reset(inside)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a shielded call came to: a value, or an error that is safe to raise."""

    value: T | None = None
    error: BaseException | None = None

    def unwrap(self) -> T:
        """Give the value or raise the error; never called inside an `except` block."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


def attempt(call: Callable[[], T], translate: Translate, *, loggers: tuple[str, ...] = EVERY_LOGGER) -> Outcome[T]:
    """
    Call within the shield.

    Args:
        call: what touches the secret.
        translate: makes our error out of a foreign exception, while that is still whole; None for "not mine".
        loggers: the name prefixes whose records are dropped meanwhile.
    """
    handled = sys.exception()
    with _closed_doors(loggers):
        try:
            return Outcome(value=call())
        except BaseException as caught:  # noqa: BLE001  nothing may pass, KeyboardInterrupt's frames hold values too
            return Outcome(error=_made_safe(caught, translate, handled))


async def attempt_async(
    call: Callable[[], Awaitable[T]], translate: Translate, *, loggers: tuple[str, ...] = EVERY_LOGGER
) -> Outcome[T]:
    """Do the same as `attempt` for a coroutine."""
    handled = sys.exception()
    with _closed_doors(loggers):
        try:
            return Outcome(value=await call())
        except BaseException as caught:  # noqa: BLE001  as above
            return Outcome(error=_made_safe(caught, translate, handled))


def shielded(translate: Translate) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make every call of the decorated function a shielded one."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return attempt(lambda: function(*args, **kwargs), translate).unwrap()

        return guarded

    return decorate


def _made_safe(caught: BaseException, translate: Translate, handled: BaseException | None) -> BaseException:
    for error in _chain(caught):
        # The caller may be inside an `except` of its own: that exception is chained to ours but is not ours to wipe.
        if error.__context__ is handled:
            error.__context__ = None
    if isinstance(caught, WiseCredsError):
        safe: BaseException = caught
    elif isinstance(caught, SystemExit):
        safe = SystemExit(caught.code if isinstance(caught.code, int) else 1)
    elif not isinstance(caught, Exception):
        # An interrupt or a cancellation: the same object goes on, its type says all there is to say.
        safe, caught.args = caught, ()
    else:
        safe = translate(caught) or unexpected(caught)
    wipe(caught, keep=safe)
    return safe


def unexpected(caught: BaseException) -> WiseCredsError:
    """Our error for an exception that nobody foresaw: its type and place, nothing that it says."""
    return WiseCredsError(f"unexpected {described(caught)}", hint="please report this with the code and the place")


def described(caught: BaseException, *, place: bool = True) -> str:
    """Name a foreign exception by type, system code and place; its own text may hold anything and stays out."""
    code = ""
    for error in _chain(caught):
        if isinstance(error, ssl.SSLError):
            code = _word(getattr(error, "reason", None))
        elif isinstance(error, socket.gaierror):
            code = "NAME_NOT_RESOLVED"
        elif isinstance(error, OSError) and error.errno is not None:
            code = errno_name(error)
        if code:
            break
    frames = traceback.extract_tb(caught.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames and place else ""
    return printable(f"{type(caught).__name__}{f' ({code})' if code else ''}{where}")


def errno_name(error: OSError) -> str:
    """Name a system error, `ENOENT` for instance."""
    import errno

    return errno.errorcode.get(error.errno or 0, "")


def ssl_reason(caught: BaseException) -> str:
    """OpenSSL's reason (`TLSV13_ALERT_CERTIFICATE_REQUIRED`) anywhere in the chain of an exception, or `""`."""
    reasons = (_word(getattr(e, "reason", None)) for e in _chain(caught) if isinstance(e, ssl.SSLError))
    return next(filter(None, reasons), "")


def _word(reason: object) -> str:
    return reason if isinstance(reason, str) and re.fullmatch(r"[A-Z0-9_]{1,64}", reason) else ""


def _chain(caught: BaseException) -> Iterator[BaseException]:
    """Walk over an exception, its causes, contexts and group members, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [caught]
    while waiting:
        error = waiting.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions


def wipe(caught: BaseException, *, keep: BaseException | None = None) -> None:
    """
    Take from an exception and its chain what could show a secret: frames, causes, arguments, attributes.

    Args:
        caught: where to begin.
        keep: an exception that goes on to the caller: it loses frames and causes but keeps its own text.
    """
    for error in list(_chain(caught)):
        frames: TracebackType | None = error.__traceback__
        if frames is not None:
            traceback.clear_frames(frames)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        if error is not keep:
            error.args = ()
            vars(error).clear()
            if isinstance(error, UnicodeDecodeError | UnicodeEncodeError):
                error.object = b"" if isinstance(error, UnicodeDecodeError) else ""  # it is the whole text
