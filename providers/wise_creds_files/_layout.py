"""
The kubelet's layout, kept by us: whole sets of files in folders `..v<N>`, and links that say which one counts.

```
directory/
├── ..data -> ..v2                     the current set
├── ..pending -> ..v3                  the staged one
├── ..v1/  ..v3/                       complete sets
├── ..v2/..previous -> ../..v1         the one that was current before
└── client_secret -> ..data/client_secret
```

The files of a set never change once it has its name, and each step takes effect by one rename: a crash leaves at most
a folder that no link names, and the next step removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from wise_creds import RotationError
from wise_creds.clock import Clock
from wise_creds.errors import printable

CURRENT, PENDING = "..data", "..pending"
_PREVIOUS = "..previous"
_TEMPORARY = "..tmp-"
_VERSION = re.compile(r"\.\.v([1-9][0-9]*)")
_PAUSE = 0.05  # seconds between two tries for a lock that nobody announces
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>

Content = dict[str, bytes]
"""A set: paths inside it to what the files hold."""


class Layout:
    """
    The sets of one directory, for whoever holds its lock; `opened` gives it.

    Attributes:
        directory: where, its links resolved.
    """

    def __init__(self, directory: Path, locks: ExitStack) -> None:
        self.directory = directory
        self._locks = locks
        # Not in the directory, for it takes its place. Nobody else's: the name holds ours, and we hold the lock.
        self._sibling = directory.with_name(f"{_TEMPORARY}{directory.name}")

    @property
    def current(self) -> Path:
        """The folder of the current set; the directory itself while it is a plain one."""
        return self._named(CURRENT) or self.directory

    @property
    def pending(self) -> Path | None:
        """The folder of the staged set."""
        return self._named(PENDING)

    def before(self, base: Path) -> Path | None:
        """Give the folder of the set that was current before this one was."""
        return self._named(f"{base.name}/{_PREVIOUS}") if base != self.directory else None

    def write(self, content: Content) -> Path:
        """Write a set under a temporary name."""
        fresh = self.directory / f"{_TEMPORARY}set"
        _write(fresh, content)
        return fresh

    def stage(self, fresh: Path) -> None:
        """Give a set that `write` made its number, and make it the staged one."""
        # A plain directory counts as the first.
        number = 1 + max(1, *map(numbered, self.directory.iterdir()))
        target = self.directory / f"..v{number}"
        os.rename(fresh, target)  # noqa: PTH104  os.rename says what it does: one system call
        self._link(self.directory / PENDING, target.name)

    def unstage(self) -> None:
        """Let go of the staged set."""
        (self.directory / PENDING).unlink(missing_ok=True)
        _sync(self.directory)

    def make_current(self, target: Path) -> None:
        """Let `..data` name another set, by one rename; a plain directory is exchanged for one that has `..data`."""
        if self.current == self.directory:
            self._convert(target)
            return
        self._publish(target)
        self._link(target / _PREVIOUS, f"../{self.current.name}")
        self._link(self.directory / CURRENT, target.name)

    def sweep(self) -> None:
        """Remove what a killed run left, sets that nothing names any more, and links to files that are gone."""
        kept = {self.current, self.pending, self.before(self.current)}
        for path in self.directory.iterdir():
            nameless = numbered(path) and path not in kept
            ours = _target(path) == f"{CURRENT}/{path.name}"
            if nameless or path.name.startswith(_TEMPORARY) or (ours and not path.exists()):
                _remove(path)
        if os.path.lexists(self._sibling):
            _remove(self._sibling)

    def _named(self, link: str) -> Path | None:
        folder = self.directory / PurePosixPath(_target(self.directory / link) or "").name
        return folder if numbered(folder) and folder.is_dir() else None

    def _link(self, link: Path, target: str) -> None:
        fresh = self.directory / f"{_TEMPORARY}link"
        fresh.symlink_to(target)
        os.rename(fresh, link)  # noqa: PTH104
        _sync(link.parent)

    def _publish(self, target: Path) -> None:
        """Make the names that readers of single files open; before the swap, for links may wait for their files."""
        links = {self.directory / name: f"{CURRENT}/{name}" for name in names_in(target)}
        for link, wanted in links.items():
            if os.path.lexists(link) and _target(link) != wanted:
                raise RotationError("it stands where a link to the current set has to be", code="WC705",
                                    location=printable(link), hint="move it away")  # fmt: skip
        for link, wanted in links.items():
            if not os.path.lexists(link):
                link.symlink_to(wanted)
        _sync(self.directory)

    def _convert(self, target: Path) -> None:
        """Prepare the whole layout beside the plain directory, then let the two change places in one step."""
        new = self._sibling
        new.mkdir(mode=0o700)
        # Whoever waits for the directory must find ours locked when it comes there.
        _lock(new, self._locks)
        _write(new / "..v1", contents(self.directory))
        _write(new / target.name, contents(target))
        (new / target.name / _PREVIOUS).symlink_to("../..v1")
        (new / CURRENT).symlink_to(target.name)
        for name in names_in(target):
            (new / name).symlink_to(f"{CURRENT}/{name}")
        for folder in (new / target.name, new, new.parent):
            _sync(folder)
        exchange(self.directory, new)
        _sync(new.parent)


@contextmanager
def opened(directory: Path, *, clock: Clock, deadline: float) -> Iterator[Layout]:
    """
    Hold the lock of a directory, and leave nothing behind in it.

    Raises:
        RotationError: somebody else holds it beyond the deadline (WC708), or fills it, the kubelet for instance (WC705).
    """
    with ExitStack() as locks:
        while not _lock(directory, locks):
            if clock.boot() >= deadline:
                raise RotationError("somebody else is rotating this directory", code="WC708", retryable=True,
                                    location=printable(directory), hint="try again when they are done")  # fmt: skip
            clock.wait(threading.Event(), _PAUSE)
        layout = Layout(directory, locks)
        if os.path.lexists(directory / CURRENT) and layout.current == directory:
            raise RotationError("..data leads to no folder of ours: something else fills this directory", code="WC705",
                                location=printable(directory), hint="rotate in the store that fills it")  # fmt: skip
        layout.sweep()
        try:
            yield layout
        finally:
            layout.sweep()


def contents(base: Path) -> Content:
    """
    Read every file of a set, links inside it followed, our own links and folders left out.

    Raises:
        RotationError: something that cannot be copied (WC705), or another user's (WC707).
    """
    found: Content = {}
    waiting = [PurePosixPath()]
    for name in waiting:
        path = base / name
        about = path.lstat()
        if about.st_uid != os.geteuid():
            raise RotationError("it belongs to another user, who could not read what this one writes", code="WC707",
                                location=printable(path), hint="rotate as the user that the service runs as")  # fmt: skip
        if stat.S_ISDIR(about.st_mode):
            inner = [inside.name for inside in path.iterdir()]
            waiting += [name / each for each in inner if path != base or not each.startswith("..")]
        elif path.is_file() and Path(os.path.realpath(path)).is_relative_to(base):
            found[str(name)] = path.read_bytes()
        else:
            raise RotationError("neither a file nor a folder of the set, so it cannot be copied", code="WC705",
                                location=printable(path), hint="move it away, or put the file itself there")  # fmt: skip
    return found


def names_in(base: Path) -> tuple[str, ...]:
    """List the names of a set, sorted; those that begin with two dots are the layout's own."""
    return tuple(sorted(path.name for path in base.iterdir() if not path.name.startswith("..")))


def numbered(path: Path) -> int:
    """Give the number that the name of a set of ours has; 0 for any other name."""
    found = _VERSION.fullmatch(path.name)
    return int(found[1]) if found else 0


def exchange(one: Path, other: Path) -> None:
    """Let two names change places, by one system call that Python does not know."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _lock(directory: Path, locks: ExitStack) -> bool:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with ExitStack() as mine:
        mine.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Another directory may have taken its place while we waited.
        if not os.path.samestat(os.fstat(fd), directory.stat()):
            return False
        locks.push(mine.pop_all())
    return True


def _write(base: Path, content: Mapping[str, bytes]) -> None:
    folders = {folder for name in content for folder in PurePosixPath(name).parents} | {PurePosixPath()}
    for folder in sorted(folders):
        (base / folder).mkdir(mode=0o700)
    for name, raw in content.items():
        with open(base / name, "xb", opener=_private) as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    for folder in folders:
        _sync(base / folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _target(link: Path) -> str | None:
    return str(link.readlink()) if link.is_symlink() else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
