"""
An SSL context from memory: the private key is never in a named file.

`SSLContext.load_cert_chain` takes only paths (https://github.com/python/cpython/issues/60691), so the pair goes through
an anonymous memory file, or through pipes where there is none. The context itself is ours: no key log, whatever
`SSLKEYLOGFILE` says, and no trust roots from the environment.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

from wise_creds.errors import CredentialsError

KeyLoading = Literal["memory", "encrypted-file"]
_MFD_CLOEXEC = 1
_MFD_NOEXEC_SEAL = 8  # absent from `os` before 3.14 and from kernels before 6.3


class _Context(ssl.SSLContext):
    """A context that is not changed once it is in use: httpcore sets ALPN anew for each connection."""

    _alpn: list[str] | None = None

    def set_alpn_protocols(self, alpn_protocols: object) -> None:
        wanted = list(alpn_protocols)  # type: ignore[call-overload]
        if wanted != self._alpn:
            super().set_alpn_protocols(wanted)
            self._alpn = wanted


def client_context(ca: str | None) -> ssl.SSLContext:
    """
    Make a client context that trusts the given CA file, or the system's store where there is none.

    Args:
        ca: PEM; a root, an intermediate, or the server's own certificate, which is a pin then.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=ca)
    else:
        _trust_system(context)
    return context


def _trust_system(context: ssl.SSLContext) -> None:
    # Not `load_default_certs`: that lets SSL_CERT_FILE and SSL_CERT_DIR replace the roots.
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if file.is_file():
        context.load_verify_locations(cafile=file)
    elif folder.is_dir() and any(folder.iterdir()):
        context.load_verify_locations(capath=folder)
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())


def load_pair(
    context: ssl.SSLContext,
    certificate: bytes,
    private_key: bytes,
    *,
    loading: KeyLoading = "memory",
) -> None:
    """
    Give a context its certificate chain and key, both PEM and the key unencrypted, without naming a file.

    Raises:
        CredentialsError: OpenSSL refuses the pair (WC429), or this platform has no way through memory (WC430).
    """
    ways = _MEMORY_WAYS if loading == "memory" else (_encrypted_file,)
    for way in ways:
        with contextlib.suppress(_NotHereError), way(certificate, private_key) as (chain, key, password):
            if not _loaded(context, chain, key, password):
                # Through a pipe OpenSSL reports a mismatched pair as ESPIPE: its text says nothing reliable.
                raise CredentialsError(
                    "OpenSSL refuses certificate and key", code="WC429", hint="see that the key is the certificate's"
                )
            return
    raise CredentialsError(
        "this platform offers no way to load a private key through memory",
        code="WC430",
        hint='in sandbox, private_key_loading = "encrypted-file" is possible',
    )


class _NotHereError(Exception):
    """A way that this platform does not have."""


def _loaded(context: ssl.SSLContext, chain: str, key: str | None, password: Callable[[], bytes] | bytes) -> bool:
    try:
        context.load_cert_chain(chain, key, password=password)
    except OSError:  # ssl.SSLError is one
        return False
    return True


def _no_prompt() -> NoReturn:
    # Without a password OpenSSL would ask on the terminal and hang there.
    raise CredentialsError("the key is encrypted", code="WC418", hint="give the field private_key_password")


@contextmanager
def _memory_file(certificate: bytes, private_key: bytes) -> Iterator[tuple[str, str | None, Callable[[], bytes]]]:
    fd = _memfd()
    content = certificate + b"\n" + private_key
    try:
        os.ftruncate(fd, len(content))
        # Through a map, so that no system call carries the key, and so that it can be wiped.
        with mmap.mmap(fd, len(content)) as memory:
            memory[:] = content
            try:
                yield f"/proc/self/fd/{fd}", None, _no_prompt
            finally:
                memory[:] = bytes(len(content))
    finally:
        os.close(fd)


def _memfd() -> int:
    create = getattr(os, "memfd_create", None)
    if create is None or not Path("/proc/self/fd").is_dir():
        raise _NotHereError
    for flags in (_MFD_CLOEXEC | _MFD_NOEXEC_SEAL, _MFD_CLOEXEC):
        with contextlib.suppress(OSError):
            fd: int = create("wise-creds", flags)
            return fd
    raise _NotHereError


@contextmanager
def _pipes(certificate: bytes, private_key: bytes) -> Iterator[tuple[str, str | None, Callable[[], bytes]]]:
    if not Path("/dev/fd").is_dir():
        raise _NotHereError
    ends: list[int] = []
    feeders = []
    try:
        for content in (certificate, private_key):
            readable, writable = os.pipe()
            ends.append(readable)
            feeder = threading.Thread(target=_feed, args=(writable, content), daemon=True)
            feeder.start()
            feeders.append(feeder)
        yield f"/dev/fd/{ends[0]}", f"/dev/fd/{ends[1]}", _no_prompt
    finally:
        for end in ends:
            os.close(end)
        for feeder in feeders:
            feeder.join()


def _feed(fd: int, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb", buffering=0) as pipe:
        view = memoryview(content)
        while view:
            view = view[pipe.write(view) :]


@contextmanager
def _encrypted_file(certificate: bytes, private_key: bytes) -> Iterator[tuple[str, str | None, bytes]]:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    password = os.urandom(32).hex().encode()
    key = load_pem_private_key(private_key, None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    with tempfile.TemporaryDirectory(prefix="wise-creds-") as folder:
        path = Path(folder) / "pair.pem"
        path.touch(mode=0o600)
        path.write_bytes(certificate + b"\n" + sealed)
        yield str(path), None, password


_MEMORY_WAYS = (_memory_file, _pipes)
