"""Helpers of the tests: a leak detector, small servers on loopback, and fields that make good credentials."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from wise_creds import Namespace, Secret
from wise_creds._engine import Job
from wise_creds.clock import SYSTEM_CLOCK
from wise_creds.credentials import Credentials, Expectations, Fields, check
from wise_creds.errors import CredentialsError
from wise_creds.testing import Authority, Issued

CLIENT_ID = "canary-client-id-5e1f"
CLIENT_SECRET = "canary-client-secret-9b3c"


def forms(canary: bytes) -> list[bytes]:
    """A value as it may turn up: raw, hex, and base64 in its three alignments."""
    encoded = []
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + canary)
        encoded.append(text[-(-shift * 8 // 6) : len(text) - 4].lstrip(b"="))
    return [canary, canary.hex().encode(), *(form for form in encoded if len(form) > 8)]


def leaks(canaries: Mapping[str, str | bytes], *texts: object) -> list[str]:
    """Name the canaries that a text holds, whole, encoded, or by any 8 characters in a row."""
    haystack = b"\n".join(text if isinstance(text, bytes) else str(text).encode("utf-8", "replace") for text in texts)
    found = []
    for name, value in canaries.items():
        raw = value.encode() if isinstance(value, str) else value
        pieces = [raw[at : at + 8] for at in range(len(raw) - 7)]
        if any(form in haystack for form in forms(raw)) or any(piece in haystack for piece in pieces):
            found.append(name)
    return found


@contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a thread until the block ends; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            serve(connection)
        connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Material:
    """Good fields made by an authority of this test's own; change what the test is about."""

    def __init__(self, *, key_type: str = "ec-p256", common_name: str = CLIENT_ID,
                 begins: timedelta = timedelta(days=-1), ends: timedelta = timedelta(days=365)) -> None:  # fmt: skip
        self.authority = Authority()
        self.issued: Issued = self.authority.client(common_name, kind=key_type, begins=begins, ends=ends)
        self.fields: dict[str, bytes | str] = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "certificate": self.issued.pem,
            "private_key": self.issued.key_pem,
            "ca_bundle": self.authority.issued.pem,
            "environment": "sandbox",
        }

    def joined(self, **changes: bytes | str | None) -> Fields:
        """The fields as the loader would give them; None leaves one out."""
        fields = {name: value for name, value in {**self.fields, **changes}.items() if value is not None}
        secrets = {name: Secret(value, name=name) for name, value in fields.items()}
        return Fields(secrets, {}, tuple(fields), "v1", ("store",))

    def expected(self, **changes: object) -> Expectations:
        """What the configuration would say."""
        return Expectations(**{"namespace": Namespace.SANDBOX, **changes})  # type: ignore[arg-type]

    def codes(self, expected: Expectations | None = None, **changes: bytes | str | None) -> list[str]:
        """The codes of everything wrong with the changed fields."""
        return [error.code for error in self.errors(expected, **changes)]

    def errors(self, expected: Expectations | None = None, **changes: bytes | str | None) -> list[CredentialsError]:
        """Everything wrong with the changed fields."""
        return list(check(self.joined(**changes), expected or self.expected(), now=SYSTEM_CLOCK.wall()).errors)

    def notices(self, expected: Expectations | None = None, **changes: bytes | str | None) -> dict[str, str]:
        """The notices about the changed fields, code to level."""
        checked = check(self.joined(**changes), expected or self.expected(), now=SYSTEM_CLOCK.wall())
        return {notice.code: notice.level for notice in checked.notices}

    def credentials(self, expected: Expectations | None = None, **changes: bytes | str | None) -> Credentials:
        """The credentials that the fields make."""
        checked = check(self.joined(**changes), expected or self.expected(), now=SYSTEM_CLOCK.wall())
        assert checked.credentials is not None, checked.errors
        return checked.credentials


def write_fields(directory: Path, fields: Mapping[str, str | bytes]) -> Path:
    """Write one file per field, as an operator with a careful umask would."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in fields.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(value.encode() if isinstance(value, str) else value)
    return directory


def until(happened: Callable[[], bool]) -> None:
    """Wait, ten seconds at most, until something that another thread does is seen."""
    pause, end = threading.Event(), SYSTEM_CLOCK.boot() + 10
    while not happened():
        assert SYSTEM_CLOCK.boot() < end
        pause.wait(0.002)


def finished(value: object) -> Job[object]:
    """A job whose outcome is there."""
    job: Job[object] = Job(lambda _job: value, name="test")
    job.wait(SYSTEM_CLOCK, SYSTEM_CLOCK.boot() + 10)
    return job
