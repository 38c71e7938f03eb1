# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What keepalived asks: whether the front of a server serves."""

from __future__ import annotations

import importlib.util
import socket
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[5]
FILE = ROOT / "plugins" / "plugin_utils" / "rollout" / "data" / "front" / "serves.py"
_spec = importlib.util.spec_from_file_location("serves", FILE)
if _spec is None or _spec.loader is None:
    raise ImportError(FILE)
serves = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(serves)


@pytest.mark.parametrize(("answer", "status"), [(b"HTTP/1.1 200 OK", 0), (b"HTTP/1.1 503 No", 1), (b"", 1)])
def test_it_serves_if_it_says_so(answer: bytes, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            link, _ = server.accept()
            with link:
                link.recv(64)
                link.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        assert serves.main("127.0.0.1", server.getsockname()[1]) == status
        thread.join()


def test_without_a_front_it_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert serves.main("127.0.0.1", port) == 1
