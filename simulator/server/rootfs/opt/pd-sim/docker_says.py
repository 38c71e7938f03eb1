"""Stands before the Docker Engine's socket, changes what it says: docker_says.py SOCKET BEHIND JSON.

Everything else passes as it is. A changed value is filled with blanks, so that no length changes.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def changed(text: bytes, values: Mapping[str, object]) -> bytes:
    """The answer with other values of these keys."""
    for key, value in values.items():

        def other(found: re.Match[bytes], value: object = value) -> bytes:
            new = found.group(1) + json.dumps(value).encode()
            return new.ljust(len(found.group(0))) if len(new) <= len(found.group(0)) else found.group(0)

        text = re.sub(rb'("' + key.encode() + rb'":)"[^"]*"', other, text)
    return text


def passed(source: socket.socket, target: socket.socket, values: Mapping[str, object]) -> None:
    """What one side says, to the other, until it ends."""
    with suppress(OSError):
        while data := source.recv(1 << 20):
            target.sendall(changed(data, values))
        target.shutdown(socket.SHUT_WR)


def serve(place: str, behind: str, values: Mapping[str, object]) -> None:
    """Answer for ever."""
    listener = socket.socket(socket.AF_UNIX)
    draft = Path(f"{place}.new")
    draft.unlink(missing_ok=True)
    listener.bind(str(draft))
    listener.listen(64)
    # Who finds it there is answered.
    draft.rename(place)
    while True:
        guest, _ = listener.accept()
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(behind)
        for args in ((guest, engine, {}), (engine, guest, values)):
            threading.Thread(target=passed, args=args, daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
