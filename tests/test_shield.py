"""Nothing leaves the shield: no exception, no cause, no frame, no log record, no span."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import ssl
import sys
import traceback
from collections.abc import Callable
from types import FrameType

import pytest
from support import leaks

from wise_creds import ConfigError, Secret, WiseCredsError
from wise_creds.secret import inside_shield
from wise_creds.shield import HTTP_LOGGERS, attempt, attempt_async, described, shielded, ssl_reason, unexpected

CANARY = {"secret": "canary-secret-4d2e"}


def _explodes(kind: str) -> None:
    value = CANARY["secret"]
    if kind == "json":
        json.loads('{"a": "' + value)
    if kind == "unicode":
        b"\xff".decode() if value else None
    if kind == "chain":
        try:
            int(value)
        except ValueError as cause:
            raise RuntimeError(value) from cause
    if kind == "group":
        raise ExceptionGroup(value, [ValueError(value)])
    if kind == "attribute":
        error = RuntimeError()
        error.body = value  # type: ignore[attr-defined]
        raise error
    raise RuntimeError(value)


KINDS = ["json", "unicode", "chain", "group", "attribute", "plain"]


def _rendered(error: BaseException) -> str:
    chain = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(chain) + repr(error.args) + repr(vars(error)) + repr(error.__context__) + repr(error.__cause__)


def _render(call: Callable[[], object]) -> str:
    try:
        call()
    except BaseException as error:
        return _rendered(error)
    raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_exception_becomes_ours_without_a_trace_of_it(kind: str) -> None:
    """Neither text nor cause nor frames nor attributes come out."""
    shown = _render(lambda: shielded(unexpected)(_explodes)(kind))
    assert leaks(CANARY, shown) == []
    assert "WC000" in shown


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unicode"])
def test_the_detector_fires_without_the_shield(kind: str) -> None:
    """The control: the usual `raise … from None` shows the value in every renderer with locals."""

    def naive() -> None:
        value = CANARY["secret"]
        try:
            _explodes(kind)
        except Exception:
            raise ConfigError(f"failed for {len(value)}") from None

    assert leaks(CANARY, _render(naive)) == ["secret"]


def test_the_original_is_wiped_even_if_somebody_keeps_it() -> None:
    """An SDK may hold its exception for later."""
    kept: list[BaseException] = []
    frames: list[FrameType] = []

    def keeps() -> None:
        try:
            _explodes("chain")
        except RuntimeError as error:
            kept.append(error)
            frames.extend(frame for frame, _ in traceback.walk_tb(error.__traceback__))
            raise

    def undecodable() -> None:
        for convert in ((CANARY["secret"].encode() + b"\xff").decode, lambda: "é".encode("ascii")):
            try:
                convert()
            except UnicodeError as error:
                kept.append(error)
        raise kept[-1]

    attempt(keeps, unexpected)
    assert (len(frames), leaks(CANARY, *(frame.f_locals for frame in frames if frame.f_code.co_name != "keeps"))) == (
        2,
        [],
    )
    attempt(undecodable, unexpected)
    assert isinstance(kept[2], UnicodeEncodeError)
    assert (kept[0].args, kept[0].__cause__, kept[0].__traceback__, kept[2].object) == ((), None, None, "")
    attempt(lambda: (_ for _ in ()).throw(kept[1]), unexpected)
    assert isinstance(kept[1], UnicodeDecodeError)
    assert kept[1].object == b""


def test_our_own_error_passes_without_frames_or_causes() -> None:
    """The error raised inside is the one that comes out, with a traceback that begins outside."""

    def ours() -> None:
        value = CANARY["secret"]
        try:
            int(value)
        except ValueError as cause:
            raise ConfigError("bad", code="WC105") from cause

    with pytest.raises(ConfigError) as caught:
        shielded(unexpected)(ours)()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "ours" not in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert leaks(CANARY, _rendered(caught.value)) == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (KeyboardInterrupt("canary-secret-4d2e"), KeyboardInterrupt()),
        (asyncio.CancelledError("canary-secret-4d2e"), asyncio.CancelledError()),
        (SystemExit(3), SystemExit(3)),
        (SystemExit("canary-secret-4d2e"), SystemExit(1)),
    ],
    ids=["interrupt", "cancelled", "exit", "exit with text"],
)
def test_interruption_keeps_its_type_and_nothing_else(raised: BaseException, expected: BaseException) -> None:
    """Ctrl-C, cancellation and exit are not turned into errors, but carry no value either."""

    def interrupted() -> None:
        raise raised

    error = attempt(interrupted, unexpected).error
    assert error is not None
    assert (type(error), error.args) == (type(expected), expected.args)


def test_an_exception_that_the_caller_handles_is_left_alone() -> None:
    """Called inside somebody's `except`, the shield wipes its own failures only."""
    try:
        raise ValueError("the caller's own")
    except ValueError as handled:
        outcome = attempt(lambda: _explodes("plain"), unexpected)
        seen = (handled.args, handled.__traceback__ is None)
    assert isinstance(outcome.error, WiseCredsError)
    assert seen == (("the caller's own",), False)


def test_foreign_records_are_dropped_inside_and_pass_outside(caplog: pytest.LogCaptureFixture) -> None:
    """The gate stands on every leaf logger, also those of an SDK that is not loaded yet; ours stay audible."""
    caplog.set_level(logging.DEBUG)

    def talks() -> None:
        for name in ("botocore.parsers", "httpcore.http11", "some.plugin", "wise_creds"):
            logging.getLogger(name).debug("body: %s", CANARY["secret"] if name != "wise_creds" else "ours")
        logging.getLogger().warning("root says %s", CANARY["secret"])

    logging.getLogger("some.plugin")
    attempt(talks, unexpected)
    assert [record.name for record in caplog.records] == ["wise_creds"]
    talks()
    assert leaks(CANARY, caplog.text) == ["secret"]


def test_only_http_loggers_are_silent_while_a_caller_streams(caplog: pytest.LogCaptureFixture) -> None:
    """In an API call the application's own code may run, and its logs are its own."""
    caplog.set_level(logging.DEBUG)

    def sends() -> None:
        logging.getLogger("hpack.hpack").debug("header")
        logging.getLogger("application").debug("my progress")

    attempt(sends, unexpected, loggers=HTTP_LOGGERS)
    assert [record.name for record in caplog.records] == ["application"]


def test_the_shield_works_for_coroutines() -> None:
    """The same outcome, awaited."""

    async def fine() -> int:
        assert inside_shield.get()
        return 7

    async def fails() -> int:
        raise RuntimeError(CANARY["secret"])

    async def both() -> tuple[int, str]:
        good = await attempt_async(fine, unexpected)
        bad = await attempt_async(fails, unexpected)
        assert not inside_shield.get()
        return good.unwrap(), _rendered(bad.error or AssertionError())

    value, shown = asyncio.run(both())
    assert (value, leaks(CANARY, shown)) == (7, [])


def test_a_description_names_type_system_code_and_place() -> None:
    """What helps the person on call, and nothing that the exception says."""
    cases: list[tuple[BaseException, str]] = [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "ConnectionRefusedError (ECONNREFUSED)"),
        (socket.gaierror(-2, "name"), "gaierror (NAME_NOT_RESOLVED)"),
        (OSError(99999, "odd"), "OSError"),
        (ValueError("x"), "ValueError"),
    ]
    assert [described(error) for error, _ in cases] == [text for _, text in cases]

    def fails() -> None:
        raise ValueError("x")

    error = attempt(fails, unexpected).error
    assert f"unexpected ValueError at {__file__.rpartition('/')[2]}:" in str(error)


def test_an_ssl_reason_is_found_in_the_chain_and_is_a_word() -> None:
    """OpenSSL's reason is a constant; anything else is not passed on."""
    inner = ssl.SSLError()
    inner.reason = "CERTIFICATE_VERIFY_FAILED"
    outer = RuntimeError()
    outer.__cause__ = inner
    odd = ssl.SSLError()
    odd.reason = "text from a peer"
    assert (ssl_reason(outer), ssl_reason(odd), ssl_reason(ValueError())) == ("CERTIFICATE_VERIFY_FAILED", "", "")
    assert "CERTIFICATE_VERIFY_FAILED" in described(outer)


def test_no_span_is_made_inside() -> None:
    """OpenTelemetry's suppression is switched on where the application has loaded it; the control makes a span."""
    httpx = pytest.importorskip("httpx")
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.httpx")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    trace_sdk = pytest.importorskip("opentelemetry.sdk.trace")
    processor = pytest.importorskip("opentelemetry.sdk.trace.export").SimpleSpanProcessor
    exporter = export.InMemorySpanExporter()
    provider = trace_sdk.TracerProvider()
    provider.add_span_processor(processor(exporter))
    instrumentor = instrumentation.HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:

        def request() -> None:
            with pytest.raises(httpx.ConnectError), httpx.Client(trust_env=False) as client:
                client.get("http://127.0.0.1:1/")

        attempt(request, unexpected)
        assert exporter.get_finished_spans() == ()
        request()
        assert len(exporter.get_finished_spans()) == 1
    finally:
        instrumentor.uninstrument()


def test_values_inside_the_traceback_are_secrets_only() -> None:
    """What the shield's own frames hold is masked."""

    def fails(secret: Secret) -> None:
        raise RuntimeError(secret.reveal())

    shown = _render(lambda: shielded(unexpected)(fails)(Secret(CANARY["secret"], name="s")))
    assert leaks(CANARY, shown) == []
    assert "<Secret s **********>" in shown
    assert sys.exception() is None
