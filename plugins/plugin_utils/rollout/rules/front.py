# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the front: who can use it, what can be read on the way, which of its variables take effect."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ..findings import ERROR, HINT, WARNING, Finding, Rule
from ..ports import GUARD, span
from ..routers import given_options, vllm_router
from ..topology import joined, router_options
from ..values import LONG_KEY
from .base import Context, rule

# Bits of the widest network in which hosts of proxy and their shared address are likely to be neighbours.
_NEIGHBOURS = 16
_DOCS = "docs/front.md"
# What the front uses for TLS alone.
_OF_TLS = ("pd_front_certificate", "pd_front_certificate_key", "pd_front_ca")


@rule(
    "PD615",
    ERROR,
    "A front with TLS has a certificate and its private key",
    cure="set pd_front_certificate and pd_front_certificate_key; or pd_front_tls: false",
    source="HAProxy 2.6 configuration manual, 5.1 (crt)",
)
def certificate_given(r: Rule, c: Context) -> Iterator[Finding]:
    front = c.cluster.declaration.front
    if front is None or not front.tls:
        return
    given = {
        "pd_front_certificate": front.certificate,
        "pd_front_certificate_key": front.certificate_key,
    }
    for variable in (name for name, is_set in given.items() if not is_set):
        # What was given and cannot be read is a finding already.
        if variable in c.cluster.declaration.front_variables:
            continue
        yield r.at(
            f"{variable} is not set: HAProxy does not start with TLS and without it",
            variable=variable,
            expected="a file on the controller, or the text in PEM",
        )


@rule(
    "PD616",
    WARNING,
    "API keys are sent over TLS",
    cure="set pd_front_tls: true, with pd_front_certificate and pd_front_certificate_key",
    source=_DOCS,
)
def keys_unseen(r: Rule, c: Context) -> Iterator[Finding]:
    front = c.cluster.declaration.front
    if front is not None and front.keys and not front.tls:
        yield r.at(
            "without TLS everybody on the way reads the clients' keys, the prompts and the answers",
            variable="pd_front_tls",
            seen="false, with pd_front_api_keys",
            expected="true",
        )


@rule(
    "PD617",
    WARNING,
    "The front asks its clients for a key",
    cure="set pd_front_api_keys, from a vault",
    source=_DOCS,
)
def clients_known(r: Rule, c: Context) -> Iterator[Finding]:
    front = c.cluster.declaration.front
    # What was given and cannot be read is a finding already.
    if (
        front is not None
        and not front.keys
        and "pd_front_api_keys" not in c.cluster.declaration.front_variables
    ):
        yield r.at(
            "whoever reaches the front's port can use the model",
            variable="pd_front_api_keys",
            seen="not set",
            expected="a key for each client",
        )


@rule(
    "PD618",
    WARNING,
    "The variables of a front take effect",
    cure="remove them, or set what they need",
    source=_DOCS,
)
def front_used(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    front, given = declaration.front, declaration.front_variables
    if front is None and c.cluster.colocated and given:
        for variable in given:
            yield r.at(
                f"{variable} has no effect: a colocated engine is used without a front",
                variable=variable,
                expected="not set",
                cure="remove it, or set pd_mode to disaggregated",
            )
        return
    if front is None:
        # A port that cannot be read is a finding already.
        for variable in given if "pd_front_port" not in given else ():
            yield r.at(
                f"{variable} has no effect without pd_front_port: there is no front",
                variable=variable,
                expected="pd_front_port, or not set",
                cure="set pd_front_port, or remove it",
            )
        return
    if not front.keys and front.requests_per_minute is not None:
        yield r.at(
            "pd_front_requests_per_minute has no effect: it limits each API key, and there is none",
            variable="pd_front_requests_per_minute",
            expected="pd_front_api_keys, or not set",
            cure="set pd_front_api_keys, or remove it",
        )
    for variable in _OF_TLS:
        if not front.tls and variable in given:
            yield r.at(
                f"{variable} has no effect with pd_front_tls: false",
                variable=variable,
                expected="pd_front_tls: true, or not set",
                cure="set pd_front_tls: true, or remove it",
            )


@rule(
    "PD619",
    WARNING,
    "API keys are too long to be found out from what servers keep of them",
    cure="take random keys: python3 -c 'import secrets; print(\"sk-\" + secrets.token_urlsafe(32))'",
    source="NIST SP 800-63B, 5.1.1.2: 112 bits",
)
def keys_long(r: Rule, c: Context) -> Iterator[Finding]:
    front = c.cluster.declaration.front
    if front is not None and front.short_keys:
        yield r.at(
            "servers keep the SHA-256 of each API key: a short key can be found out from it by trying",
            variable="pd_front_api_keys",
            seen=f"less than {LONG_KEY} characters: {joined(front.short_keys)}",
            expected=f"{LONG_KEY} or more random characters",
        )


@rule(
    "PD620",
    WARNING,
    "No client's API key is the key of the engines",
    cure="give each client a key of its own, and the engines another one",
    source=_DOCS,
)
def keys_apart(r: Rule, c: Context) -> Iterator[Finding]:
    front = c.cluster.declaration.front
    if front is not None and front.engine_keys:
        yield r.at(
            "with pd_api_key a client can pass by the front and use the engines, where they can be reached",
            variable="pd_front_api_keys",
            seen=f"the same as pd_api_key: {joined(front.engine_keys)}",
            expected="keys that differ",
        )


@rule(
    "PD621",
    WARNING,
    "The router takes every request that the front lets through",
    cure="set pd_front_max_body to at most that size, or max-payload-size in pd_router_args",
    source="vllm-router 0.1.17: vllm_router/router_args.py:45",
)
def requests_fit(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    front = declaration.front
    if front is None or declaration.router != "vllm_router":
        return
    limit = vllm_router().max_payload
    for option in given_options(router_options(c.cluster), declaration.router_args):
        if option.name == "max-payload-size" and str(option.value).isdigit():
            limit = int(option.value)
    if front.body_limit > limit:
        yield r.at(
            "vllm-router refuses larger requests than max-payload-size, which the front lets through",
            variable="pd_front_max_body",
            seen=f"{front.body_limit} bytes",
            expected=f"at most {limit} bytes",
        )


@rule(
    "PD622",
    HINT,
    "Only servers of the cluster reach the ports of engines and guards",
    cure="close the ports to others, with a firewall",
    source="V@0.18.0:docs/usage/security.md:163",
)
def engines_closed(r: Rule, c: Context) -> Iterator[Finding]:
    """What the front asks for, engines do not: metrics of their API, handshakes of the KV cache."""
    declaration = c.cluster.declaration
    if declaration.front is None or not declaration.front.keys:
        return
    servers = sorted({address for address in declaration.addresses.values() if address})
    by_ports: dict[str, list[str]] = {}
    for host, uses in c.table.items():
        closed = [use for use in uses if use.bound and (use.instance or use.purpose == GUARD)]
        spans = sorted({(use.first, use.last) for use in closed})
        if spans:
            by_ports.setdefault(", ".join(span(*one) for one in spans), []).append(host)
    for ports, hosts in by_ports.items():
        allowed = ", ".join(("127.0.0.1", *servers))
        yield r.at(
            "clients need no port of engines and guards, and some of these ports ask for no key",
            host=", ".join(hosts),
            seen=f"ports {ports}",
            expected="no connection from outside of the cluster",
            cure=(
                "nft 'add table inet pd; add chain inet pd input { type filter hook input priority 0; }; "
                f"add rule inet pd input tcp dport {{ {ports} }} ip saddr != {{ {allowed} }} drop'"
                "  # add the addresses of those that read the engines' metrics"
            ),
        )


@rule(
    "PD623",
    ERROR,
    "The address that fronts share is no server's own",
    cure="choose a free address in the network of the hosts of proxy",
    source="RFC 5798, 5.2.9 and 6.1",
)
def address_free(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    front = declaration.front
    if front is None or front.virtual_address is None:
        return
    owners = [host for host, address in declaration.addresses.items() if address == front.virtual_address]
    if owners:
        yield r.at(
            f"pd_front_virtual_address is the address of {joined(owners)}: it would move away from there",
            variable="pd_front_virtual_address",
            seen=front.virtual_address,
            expected="an address that no server has",
        )


@rule(
    "PD624",
    WARNING,
    "The address that fronts share is near their own",
    cure="choose a free address in the network of the hosts of proxy",
    source="RFC 5798, 1: routers on one LAN",
)
def address_near(r: Rule, c: Context) -> Iterator[Finding]:
    """A front announces the address by ARP, which no router passes on."""
    declaration = c.cluster.declaration
    front = declaration.front
    if front is None or front.virtual_address is None:
        return
    own = [declaration.addresses.get(host) for host in declaration.proxy_hosts]
    near = {ipaddress.ip_network(f"{one}/{_NEIGHBOURS}", strict=False) for one in own if one}
    if near and not any(ipaddress.ip_address(front.virtual_address) in network for network in near):
        yield r.at(
            "pd_front_virtual_address is far from the fronts, and only their own network learns of it",
            variable="pd_front_virtual_address",
            seen=front.virtual_address,
            expected=f"an address in the network of {joined([one for one in own if one])}",
        )


@rule(
    "PD625",
    HINT,
    "An address that fronts share has somewhere to move",
    cure="add a host to proxy, or remove pd_front_virtual_address",
    source=_DOCS,
)
def address_moves(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    front = declaration.front
    if front is not None and front.virtual_address is not None and len(declaration.proxy_hosts) == 1:
        yield r.at(
            "pd_front_virtual_address cannot move: there is one front",
            variable="pd_front_virtual_address",
            seen=f"proxy: {joined(declaration.proxy_hosts)}",
            expected="two hosts in proxy",
        )
