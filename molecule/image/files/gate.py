"""The uplink: passes connections on to the registry, counts what comes back, and can be slow, still or cut.

    gate.py PORT TARGET_PORT FOLDER

FOLDER/gate.json is read at each piece: {"rate": bytes a second, "hold": bytes after which nothing passes
until that is taken back, "limit": bytes after which all is cut}. FOLDER/count holds the bytes so far.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

PIECE = 64 * 1024
# Seconds between two looks whether it goes on.
LOOK = 0.05


class Gate:
    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()

    def settings(self) -> dict:
        try:
            return json.loads((self._folder / "gate.json").read_text())
        except (OSError, ValueError):
            return {}

    def passed(self) -> int:
        try:
            return int((self._folder / "count").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def count(self, size: int) -> None:
        with self._lock:
            total = self.passed() + size
            draft = self._folder / ".count"
            draft.write_text(str(total))
            draft.replace(self._folder / "count")

    def reached(self, mark: str) -> bool:
        size = self.settings().get(mark)
        return size is not None and self.passed() >= size

    def closed(self) -> bool:
        return self.reached("limit")

    def back(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                while self.reached("hold"):
                    time.sleep(LOOK)
                if self.closed() or not (piece := source.recv(PIECE)):
                    break
                target.sendall(piece)
                self.count(len(piece))
                if rate := self.settings().get("rate"):
                    time.sleep(len(piece) / rate)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def forth(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)


def main() -> None:
    port, target, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    gate = Gate(folder)
    with socket.create_server(("", port), backlog=64) as listening:
        while True:
            guest, _address = listening.accept()
            if gate.closed():
                guest.close()
                continue
            registry = socket.create_connection(("127.0.0.1", target))
            threading.Thread(target=forth, args=(guest, registry), daemon=True).start()
            threading.Thread(target=gate.back, args=(registry, guest), daemon=True).start()


if __name__ == "__main__":
    main()
