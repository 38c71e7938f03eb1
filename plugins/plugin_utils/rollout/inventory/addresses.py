# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The service address of a host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ..findings import shown
from ..rules.inventory import IPV6, NO_ADDRESS, NOT_IPV4, UNREADABLE
from .raw import Unreadable
from .reader import Reader


def service_address(host: str, variables: Mapping[str, Any], reader: Reader) -> str | None:
    """Return the host's service address: pd_node_ip, else ansible_host, else its name if that is an address.

    None if there is no valid address; ``reader`` then has a finding.
    """
    for variable in ("pd_node_ip", "ansible_host"):
        raw = variables.get(variable)
        if raw is None or raw == "":
            continue
        if isinstance(raw, Unreadable):
            reader.add(
                UNREADABLE,
                f"{variable} cannot be evaluated: {shown(raw.reason, 300)}",
                host=host,
                variable=variable,
            )
            return None
        return _ipv4(host, variable, raw, reader)
    if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", host):
        return _ipv4(host, None, host, reader)
    reader.add(NO_ADDRESS, "the host has no address", host=host, variable="ansible_host")
    return None


def _ipv4(host: str, variable: str | None, raw: Any, reader: Reader) -> str | None:
    seen = str(raw) if isinstance(raw, str) else raw
    try:
        if not isinstance(raw, str):
            raise ValueError
        address = ipaddress.ip_address(str(raw).strip().strip("[]"))
    except ValueError:
        reader.add(
            NOT_IPV4,
            "the engine needs an IP address, and this is not one",
            host=host,
            variable=variable,
            seen=seen,
            expected="an IPv4 address",
        )
        return None
    if address.version == 6:
        reader.add(
            IPV6,
            "The backend of mooncake's Ascend Direct Xfer Library currently does not support IPv6.",
            host=host,
            variable=variable,
            seen=seen,
            expected="an IPv4 address",
        )
        return None
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or str(address) == "255.255.255.255"
    ):
        reader.add(
            NOT_IPV4,
            "no other host can reach this address",
            host=host,
            variable=variable,
            seen=seen,
            expected="the server's address on the service network",
        )
        return None
    return str(address)
