"""Reading files while somebody writes them: no pair is ever taken half old and half new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import CLIENT_ID, Material

import wise_creds
from wise_creds import Credentials, LoadError

Pair = tuple[bytes, ...]
NAMES = ("certificate", "private_key", "client_id", "client_secret")


def kubelet(directory: Path, number: int, pair: Pair) -> None:
    """Write a new folder and swap the link `..data`, as Kubernetes does."""
    folder = directory / f"..{number}"
    folder.mkdir(mode=0o700)
    for name, content in zip(NAMES, pair, strict=True):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    (directory / "..data_tmp").symlink_to(folder.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for old in directory.glob(f"..{number - 2}"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()


def renames(directory: Path, _number: int, pair: Pair) -> None:
    """Replace one file after the other."""
    for name, content in zip(NAMES, pair, strict=True):
        beside = directory / f".{name}"
        beside.touch(mode=0o600)
        beside.write_bytes(content)
        beside.rename(directory / name)


def truncates(directory: Path, _number: int, pair: Pair) -> None:
    """Write into the files that are there."""
    for name, content in zip(NAMES, pair, strict=True):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(content)


@pytest.mark.parametrize("write", [kubelet, renames, truncates])
def test_no_pair_is_torn_whoever_writes(tmp_path: Path, write: Callable[[Path, int, Pair], None]) -> None:
    """A reader that opens two files one after the other is the control: it gets torn pairs."""
    pairs: list[Pair] = [(one.issued.pem, one.issued.key_pem, CLIENT_ID.encode(), b"canary-client-secret")
                         for one in (Material(), Material())]  # fmt: skip
    if write is kubelet:
        for name in NAMES:
            (tmp_path / name).symlink_to(f"..data/{name}")
    write(tmp_path, 0, pairs[0])
    stop = threading.Event()

    def writing() -> None:
        number = 1
        while not stop.is_set():
            write(tmp_path, number, pairs[number % 2])
            number += 1

    config = {"sandbox": {"provider": "files", "directory": str(tmp_path)}}
    writer = threading.Thread(target=writing)
    writer.start()
    torn = 0
    loaded: list[Credentials] = []
    try:
        for _ in range(3000):
            if torn and len(loaded) >= 20:
                break
            try:
                naive = tuple((tmp_path / name).read_bytes() for name in NAMES)
            except FileNotFoundError:
                naive = pairs[0]
            torn += naive not in pairs
            try:
                loaded.append(wise_creds.load("sandbox", config=config))
            except LoadError:
                continue  # the writer was in the middle: the last good pair would serve on
    finally:
        stop.set()
        writer.join()
    whole = {pair[0].strip(): pair[1].strip() for pair in pairs}
    taken = [(one.certificate.pem.encode().strip(), one.private_key.reveal_bytes().strip())
             for one in loaded if one.certificate and one.private_key]  # fmt: skip
    assert (torn > 0, len(taken) >= 20, [one for one in taken if whole[one[0]] != one[1]]) == (True, True, [])
