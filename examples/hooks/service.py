#!/usr/bin/env python3
"""A service that goes over to new credentials on SIGHUP, and prints its status at the start and after each."""

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading

import wise_creds

# A handler interrupts the main thread anywhere, also where it holds a lock that refresh() needs: that would wait for
# ever. So the handler only leaves word. A thread in wait() or set() holds the lock of an Event too; put() of a
# SimpleQueue may interrupt itself.
asked: queue.SimpleQueue[int] = queue.SimpleQueue()
signal.signal(signal.SIGHUP, lambda number, _frame: asked.put(number))


def follow(wise: wise_creds.Connection) -> None:
    """Refresh whenever that is asked for."""
    while asked.get():
        with contextlib.suppress(wise_creds.WiseCredsError):  # it is logged, and the credentials of before serve on
            wise.refresh()
        tell(wise)


def tell(wise: wise_creds.Connection) -> None:
    """Print how things stand."""
    sys.stdout.write(json.dumps(wise.status()) + "\n")
    sys.stdout.flush()


with wise_creds.connect() as connection:
    threading.Thread(target=follow, args=(connection,), daemon=True).start()
    tell(connection)
    if address := os.environ.get("NOTIFY_SOCKET"):  # systemd waits for this: from here on it may send SIGHUP
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\0", 1))
    while True:
        signal.pause()  # the service's own work
