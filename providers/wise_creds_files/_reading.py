"""Reading one secret file, and nothing that only looks like one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from wise_creds.errors import (
    AccessDeniedError,
    CredentialsError,
    ProviderUnavailableError,
    SecretNotFoundError,
    WiseCredsError,
    printable,
)

_NAME_A_FILE = "name the file that holds the secret"
LARGEST = 65_536  # bytes, as AWS Secrets Manager; a chain with its key takes some ten thousand


@dataclass(frozen=True)
class Content:
    """What a file holds, and who may read it."""

    raw: bytes
    mode: int
    owner: int


def read(path: Path, *, inside: Path | None = None) -> Content:
    """
    Read a regular file of at most 64 KiB.

    Args:
        path: the file; a link is followed.
        inside: where it must end up, its links resolved.

    Raises:
        SecretNotFoundError: there is none (WC301).
        AccessDeniedError: it may not be read (WC302), or a link leads out of the directory (WC306).
        CredentialsError: not a regular file (WC307), or too large (WC308).
    """
    real = Path(os.path.realpath(path))
    if inside is not None and not real.is_relative_to(inside):
        raise AccessDeniedError("a link leads out of the directory", code="WC306", location=printable(path),
                                hint="keep the file inside, or name its own directory")  # fmt: skip
    try:
        # Neither a FIFO nor a device may hold us up, and no link may appear in the last step meanwhile.
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as caught:
        raise denied(caught, path) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise CredentialsError("not a regular file", code="WC307", location=printable(path), hint=_NAME_A_FILE)
        raw = b""
        while len(raw) <= LARGEST and (more := os.read(fd, LARGEST + 1 - len(raw))):
            raw += more
    except OSError as caught:
        raise denied(caught, path) from None
    finally:
        os.close(fd)
    if len(raw) > LARGEST:
        raise CredentialsError("larger than 64 KiB", code="WC308", location=printable(path), hint=_NAME_A_FILE)
    return Content(raw, stat.S_IMODE(about.st_mode), about.st_uid)


def denied(caught: OSError, path: Path) -> WiseCredsError:
    """Say what a system error means for a path."""
    where = printable(path)
    if isinstance(caught, FileNotFoundError | NotADirectoryError):
        return SecretNotFoundError("there is no such file or directory", code="WC301", location=where,
                                   hint="is it mounted? relative paths start at the configuration's folder")  # fmt: skip
    if isinstance(caught, PermissionError):
        return AccessDeniedError("this process may not read it", code="WC302", location=where,
                                 hint=f"it runs as user {os.geteuid()}, group {os.getegid()}")  # fmt: skip
    if isinstance(caught, IsADirectoryError):
        return CredentialsError("not a regular file", code="WC307", location=where, hint=_NAME_A_FILE)
    return ProviderUnavailableError(f"it cannot be read ({type(caught).__name__} {caught.errno})", code="WC303",
                                    location=where, hint="is the mount alive?")  # fmt: skip


def without_newline(raw: bytes) -> bytes:
    """Strip exactly one line end, which editors and `echo` add; a secret may end in more."""
    return raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
