# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the planned address and ports can be used on this server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..._findings import Finding, numbers
from .. import parsers
from ..catalogue import HOST_CHECKS
from ..query.network import Nic
from ..query.processes import PortHolder
from ..query.server import HostState
from ..requirements import HostRequirements, PlannedPorts

HCCL = "HCCL"


def ports_free(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    # One process on several ports of one purpose is one finding.
    groups: dict[tuple[str, str, str], list[PortHolder]] = defaultdict(list)
    # A connection that such a listener has accepted may be closing, and then belongs to no process.
    accepted = {holder.port for holder in state.port_holders if holder.own and holder.listens}
    for holder in state.port_holders:
        if holder.own or (not holder.listens and holder.port in accepted):
            continue
        for row in requirements.ports:
            if not row.covers(holder.port):
                continue
            code = _port_code(row, holder)
            if code:
                groups[(code, row.purpose, holder.who)].append(holder)
    for (code, purpose, who), found in groups.items():
        ports = sorted({holder.port for holder in found})
        verb = "is in use" if code != "host-port-connection" else "is used by a connection"
        if len(ports) > 1:
            verb = verb.replace("is", "are", 1)
        yield HOST_CHECKS.finding(
            code,
            f"port{'s' * (len(ports) > 1)} {numbers(ports)} ({purpose}) {verb}: {who}",
            seen=f"{who} {'listens' if found[0].listens else 'is connected'}"
            f" at {found[0].address}:{ports[0]}",
            port=ports[0],
        )
    wanted = [(row.first, row.last) for row in requirements.ports if row.bound or row.purpose == HCCL]
    if state.ephemeral is not None:
        unreserved = parsers.uncovered(
            parsers.within(parsers.merged_ranges(wanted), state.ephemeral), state.reserved
        )
        if unreserved:
            yield HOST_CHECKS.finding(
                "host-ports-not-reserved",
                "planned ports are in Linux's range for outgoing connections and are not reserved",
                seen=f"{parsers.range_text(unreserved)} within {state.ephemeral[0]}-{state.ephemeral[1]}",
                ranges=parsers.range_text(parsers.merged_ranges([*state.reserved, *wanted])),
            )


def _port_code(row: PlannedPorts, holder: PortHolder) -> str | None:
    """Return the code of the finding about a process that uses a port of that row, or None."""
    if row.bound:
        return "host-port-taken" if holder.listens else "host-port-connection"
    # The libraries bind to the service address: a listener on loopback alone does not conflict.
    if not holder.listens or holder.address.startswith("127."):
        return None
    if row.purpose == HCCL:
        return "host-port-hccl"
    return "host-port-pool" if row.instance is None else None


def network(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    address, declared = requirements.address, requirements.interface
    by_name = {nic.name: nic for nic in state.nics}
    carrier = nic_with_address(state.nics, address)
    if declared and declared not in by_name:
        yield HOST_CHECKS.finding(
            "host-nic-missing",
            f"NIC {declared} does not exist",
            seen=", ".join(nic.name for nic in state.nics if nic.name != "lo") or "no NIC",
            expected=declared + (f"; {carrier.name} has {address}" if carrier else ""),
        )
    elif declared and carrier is not None and carrier.name != declared:
        yield HOST_CHECKS.finding(
            "host-address-elsewhere",
            f"{address} is on {carrier.name}, not on {declared}",
            seen=f"{declared}: {', '.join(by_name[declared].addresses) or 'no address'}",
            expected=f"{address} on {declared}",
        )
    if carrier is None:
        yield HOST_CHECKS.finding(
            "host-address-missing",
            f"no NIC has the address {address}",
            seen="; ".join(
                f"{n.name} {', '.join(n.addresses)}" for n in state.nics if n.addresses and n.name != "lo"
            ),
            expected=f"{address} on a NIC",
        )
        # All further findings would have the same cause.
        return
    for nic in {name: by_name[name] for name in (carrier.name, declared) if name in by_name}.values():
        if not nic.up:
            yield HOST_CHECKS.finding(
                "host-nic-down", f"NIC {nic.name} is down", seen="down, or no carrier", nic=nic.name
            )
    for advertised in dict.fromkeys(requirements.advertise):
        effective = advertised or state.default_address
        if effective != address:
            origin = "VLLM_HOST_IP" if advertised else "the default route"
            yield HOST_CHECKS.finding(
                "host-advertised-address",
                f"the engine would advertise {effective or 'no address'} ({origin}) instead of {address}",
                seen=f"{effective or 'no default route'}, by {origin}",
                expected=address,
                address=address,
            )
    # A NIC that is not in the main table is used by policy routing: nothing is known about it.
    astray = {
        name: route
        for name, route in state.routes.items()
        if carrier.up and (route.source != address or route.nic not in (None, carrier.name))
    }
    if astray:
        name, route = next(iter(astray.items()))
        yield HOST_CHECKS.finding(
            "host-route-elsewhere",
            f"packets to {', '.join(astray)} do not leave from {address} through {carrier.name}",
            seen=f"to {name}: from {route.source or 'nowhere, there is no route'}"
            + (f" through {route.nic}" if route.nic else ""),
            expected=f"from {address} through {carrier.name}",
            peer=requirements.peers[name],
        )


def nic_with_address(nics: Iterable[Nic], address: str) -> Nic | None:
    """Return the NIC with that address, or None."""
    return next((nic for nic in nics if address in nic.addresses), None)
