"""An SSL context from memory: real handshakes, no file, no key log, no prompt."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import CLIENT_ID, Material, tcp_server

from wise_creds import CredentialsError, tls
from wise_creds.testing import Authority, MockWise
from wise_creds.tls import client_context, load_pair

MATERIAL = Material()
PAIR = (MATERIAL.issued.pem, MATERIAL.issued.key_pem)
CA = MATERIAL.authority.issued.pem.decode()


@contextmanager
def _server(material: Material, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[tuple[int, list[bytes]]]:
    """Shake hands once per connection, tell whose certificate came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    server = material.authority.server()
    load_pair(context, server.pem, server.key_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=material.authority.issued.pem.decode())
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as tls:
            seen.append(tls.getpeercert(True) or b"")
            tls.sendall(b"hello")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], seen
    thread.join(10)
    listener.close()


def _greeted(context: ssl.SSLContext, port: int) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        return tls.recv(5)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
@pytest.mark.parametrize("way", ["memory", "pipes", "encrypted-file"])
def test_a_pair_loaded_in_any_way_shakes_hands(
    way: str, kind: str, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sees exactly our certificate."""
    material = Material(key_type=kind)
    if way == "pipes":
        monkeypatch.delattr(os, "memfd_create")
    context = client_context(material.authority.issued.pem.decode())
    load_pair(
        context, material.issued.pem, material.issued.key_pem,
        loading="encrypted-file" if way == "encrypted-file" else "memory",
    )  # fmt: skip
    with _server(material, version) as (port, seen):
        assert _greeted(context, port) == b"hello"
    assert ssl.DER_cert_to_PEM_cert(seen[0]).encode() == material.issued.pem


@pytest.mark.parametrize("way", [tls._memory_file, tls._pipes, tls._encrypted_file])
def test_every_way_leaves_no_descriptor_and_no_file(
    way: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when OpenSSL refuses the pair."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tls, "_MEMORY_WAYS", (way,))
    before = set(os.listdir("/proc/self/fd"))
    load_pair(client_context(CA), *PAIR)
    with pytest.raises(CredentialsError) as caught:
        load_pair(client_context(CA), PAIR[0], Authority().client("x").key_pem)
    assert caught.value.code == "WC429"
    assert (set(os.listdir("/proc/self/fd")), list(tmp_path.iterdir())) == (before, [])


def test_a_large_chain_goes_through_pipes() -> None:
    """More than a pipe holds at once: it is fed while OpenSSL reads."""
    with tls._pipes(b"c" * 300_000, b"k") as (chain, key, _):
        assert (len(Path(chain).read_bytes()), Path(key or "").read_bytes()) == (300_000, b"k")


def test_the_memory_is_wiped_and_closed() -> None:
    """What stays behind the descriptor is zeros."""
    with tls._memory_file(*PAIR) as (path, _, _password):
        kept = os.open(path, os.O_RDONLY)
    content = os.pread(kept, 10_000, 0)
    os.close(kept)
    assert content == bytes(len(PAIR[0]) + 1 + len(PAIR[1]))


def test_an_encrypted_key_never_prompts() -> None:
    """Without a password callback OpenSSL would ask on the terminal and hang."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    sealed = MATERIAL.issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    with pytest.raises(CredentialsError) as caught:
        load_pair(client_context(CA), PAIR[0], sealed)
    assert caught.value.code == "WC418"


def test_a_kernel_that_knows_no_seal_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """MFD_NOEXEC_SEAL is refused before Linux 6.3: once more without."""
    real, flags = os.memfd_create, []

    def old(name: str, flag: int) -> int:
        flags.append(flag)
        if flag & 8:
            raise OSError(22, "EINVAL")
        return real(name, flag)

    monkeypatch.setattr(os, "memfd_create", old)
    load_pair(client_context(CA), *PAIR)
    assert flags == [9, 1]


def test_where_nothing_works_it_says_so_and_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a silent fall to a key on disk."""

    def refuses(name: str, flag: int) -> int:
        raise OSError(1, "EPERM")

    monkeypatch.setattr(os, "memfd_create", refuses)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "is_dir", lambda self: str(self) != "/dev/fd")
    with pytest.raises(CredentialsError) as caught:
        load_pair(client_context(CA), *PAIR)
    assert (caught.value.code, list(tmp_path.iterdir())) == ("WC430", [])


def test_no_key_log_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SSLKEYLOGFILE says; the default context is the control that writes one."""
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    context = client_context(CA)
    load_pair(context, *PAIR)
    with _server(MATERIAL) as (port, _):
        _greeted(context, port)
    assert not log.exists()
    naive = ssl.create_default_context(cadata=CA)
    load_pair(naive, *PAIR)
    with _server(MATERIAL) as (port, _):
        _greeted(naive, port)
    assert "CLIENT_TRAFFIC_SECRET" in log.read_text()


def test_the_environment_brings_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE replaces the roots of a default context, the control, and not of ours."""
    (tmp_path / "ca.pem").write_text(CA)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    ours, naive = client_context(None), ssl.create_default_context()
    for context in (ours, naive):
        load_pair(context, *PAIR)
    with _server(MATERIAL) as (port, _):
        assert _greeted(naive, port) == b"hello"
    with MockWise() as wise, pytest.raises(ssl.SSLCertVerificationError):
        _greeted(ours, int(wise.base_url.rpartition(":")[2]))


def test_without_a_system_store_certifi_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file first, then a folder that holds something, then certifi."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "ca.pem").write_text(CA)
    found = []
    for file, folder in (("ca.pem", "full"), ("none", "full"), ("none", "empty"), ("none", "none")):
        paths = ssl.DefaultVerifyPaths("", "", "", str(tmp_path / file), "", str(tmp_path / folder))
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda paths=paths: paths)
        found.append(len(client_context(None).get_ca_certs()))
    assert (found[:2], found[2] > 50, found[3] > 50) == ([1, 0], True, True)


@pytest.mark.parametrize("kind", ["root", "intermediate", "leaf"])
def test_wises_file_may_be_a_root_an_intermediate_or_the_servers_own(kind: str) -> None:
    """A partial chain is enough; the last one is a pin, which the control without our flag refuses."""
    root = Authority("root")
    middle = Authority("middle", above=root)
    server = middle.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, server.pem + middle.issued.pem, server.key_pem)
    trusted = {"root": root.issued, "intermediate": middle.issued, "leaf": server}[kind].pem.decode()
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.load_verify_locations(cadata=trusted)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")

    with tcp_server(serve) as port:
        assert _greeted(client_context(trusted), port) == b"hello"
        if kind != "root":
            with pytest.raises(ssl.SSLCertVerificationError):
                _greeted(strict, port)
    assert client_context(CA).minimum_version is ssl.TLSVersion.TLSv1_2
    assert client_context(CA).check_hostname


def test_a_context_in_use_is_not_changed_again() -> None:
    """Httpcore sets ALPN for each connection; only the first time does anything."""
    context = client_context(CA)
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols(["http/1.1"])
    assert context._alpn == ["http/1.1"]  # type: ignore[attr-defined]


def test_credentials_make_a_fresh_context_each_time() -> None:
    """With the pair, or without where there is none."""
    made = MATERIAL.credentials()
    with _server(MATERIAL) as (port, seen):
        assert _greeted(made.ssl_context(), port) == b"hello"
    bare = MATERIAL.credentials(MATERIAL.expected(mtls=False), ca_bundle=None)
    assert made.ssl_context() is not made.ssl_context()
    assert (len(seen), bare.ssl_context().verify_mode, CLIENT_ID in repr(made)) == (1, ssl.CERT_REQUIRED, False)
