# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The NIC that has an address of the server."""

from __future__ import annotations

from .. import _systemd as systemd
from .files import NIC


def of(address: str) -> str | None:
    """Return the name of the NIC that has this IPv4 address; None if none has it."""
    _status, said = systemd.run(["ip", "-oneline", "-4", "address", "show"])
    for line in said.splitlines():
        words = line.split()
        if len(words) > 3 and words[3].partition("/")[0] == address:
            return words[1].partition("@")[0]
    return None


def filled(text: str, address: str) -> str:
    """Return a text with the name of the NIC that has the address in its place."""
    return text.replace(NIC, of(address) or NIC)
