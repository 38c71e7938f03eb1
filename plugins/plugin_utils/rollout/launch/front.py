# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The front of one host: HAProxy's configuration and its unit, with which clients reach the routers.

What it relies on was measured with HAProxy 2.6.12 and is described in docs/front.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .. import data
from ..model import Front, ValidCluster
from ..plan_dict import AddressDict, EndpointDict, FrontDict, ProxyDict
from .container import directory
from .router import backends

# Mozilla's intermediate list for TLS 1.2; TLS 1.3 has its own.
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# The engines that are asked for the models.
_MODELS_OF = 8


def front(cluster: ValidCluster, host: str, routers: Sequence[ProxyDict]) -> FrontDict | None:
    """Return the front of a host, as in the plan; None if it has none.

    ``routers``: the routers of the host, blue and green.
    """
    declared = cluster.declaration.front
    if declared is None or not routers:
        return None
    deployment, address = cluster.declaration.deployment, cluster.addresses[host]
    unit = f"{deployment}-front"
    folder, run = f"{directory(cluster)}/front", f"/run/{unit}"
    places = {
        "DEPLOYMENT": deployment,
        "HOST": host,
        "DIRECTORY": folder,
        "RUN": run,
        "RUN_NAME": unit,
        "CONNECTIONS": str(declared.connections),
        "ANSWER": str(declared.answer_timeout),
        "REQUEST": str(declared.request_timeout),
        "IDLE": str(declared.idle_timeout),
        # An answer that goes on has no limit; that of a stream which outlives a reload is a day, or more.
        "LONGEST": str(max(86400, declared.answer_timeout, cluster.declaration.drain_timeout)),
        "BODY": str(declared.body_limit),
        "BIND": "\n".join(_bind(declared, address, folder)),
        "METRICS": f"{address}:{declared.metrics_port}",
        "ONE_REQUEST": "\n".join(_one_request(cluster)),
        "CHECK": "/healthcheck" if cluster.declaration.router == "upstream" else "/readiness",
        "BLUE": f"{routers[0]['host']}:{routers[0]['port']}",
        "GREEN": f"{routers[1]['host']}:{routers[1]['port']}",
        "TLS": "\n".join(_tls(declared)),
        "LUA": "\n".join(_conditional("LUA", f"lua-load {folder}/keys.lua")) if declared.keys else "",
        "KEY_METRICS": "\n".join(
            _conditional("LUA", "http-request use-service lua.keys if { path /metrics/keys }")
        )
        if declared.keys
        else "",
        "KEYS": "\n".join(_keys(declared, folder)),
        "RATE": "\n".join(_rate(declared)),
        "REFUSALS": "\n".join(_refusals()),
        "MODELS": "\n".join(_models(cluster, folder)),
    }
    shared = _shared(cluster, host, declared, places)
    return {
        "unit": unit,
        "directory": folder,
        "run": run,
        "host": address,
        "port": declared.port,
        "metrics_port": declared.metrics_port,
        "name": declared.name,
        "tls": declared.tls,
        "keys": bool(declared.keys),
        "engine_key": bool(cluster.declaration.api_key),
        "config": filled(data.text("front", "haproxy.cfg"), places),
        "service": filled(data.text("front", "front.service"), places),
        "lua": data.text("front", "keys.lua") if declared.keys else None,
        "shared": shared,
        "packages": ["haproxy"] if shared is None else ["haproxy", "keepalived"],
        "drain_timeout": cluster.declaration.drain_timeout,
    }


def _shared(cluster: ValidCluster, host: str, declared: Front, places: dict[str, str]) -> AddressDict | None:
    """Return what gives the virtual address to one of the fronts; None without one."""
    if declared.virtual_address is None:
        return None
    unit = f"{cluster.declaration.deployment}-address"
    peers = [cluster.addresses[other] for other in cluster.declaration.proxy_hosts if other != host]
    own = {
        **places,
        "UNIT": unit,
        "ADDRESS": cluster.addresses[host],
        "METRICS_PORT": str(declared.metrics_port),
        "UNICAST": "\n".join(_unicast(cluster.addresses[host], peers)),
        "VIRTUAL": declared.virtual_address,
        # Unique among the virtual addresses of a network, as the address itself.
        "ID": str(min(max(int(declared.virtual_address.rpartition(".")[2]), 1), 255)),
        # The server knows its NIC.
        "NIC": "@NIC@",
    }
    return {
        "unit": unit,
        "address": declared.virtual_address,
        "config": filled(data.text("front", "keepalived.conf"), own),
        "service": filled(data.text("front", "address.service"), own),
        "check": data.text("front", "serves.py"),
    }


def _unicast(address: str, peers: Sequence[str]) -> Iterator[str]:
    """Yield how the other fronts are told one by one. keepalived 2.2.7 takes an empty list for multicast,
    with a warning."""
    if peers:
        yield f"unicast_src_ip {address}"
        yield "unicast_peer {"
        yield from (f"    {peer}" for peer in peers)
        yield "}"


def filled(text: str, places: dict[str, str]) -> str:
    """Return a text with values instead of ``@NAME@``. A place alone on its line takes all lines of its
    value; without any, the line goes."""
    lines: list[str] = []
    for line in text.splitlines():
        alone = re.fullmatch(r"( *)@([A-Z_]+)@", line)
        if alone:
            lines.extend(f"{alone[1]}{part}".rstrip() for part in places[alone[2]].splitlines())
        else:
            lines.append(re.sub(r"@([A-Z_]+)@", lambda place: places[place[1]], line))
    return "\n".join(lines) + "\n"


def _bind(declared: Front, address: str, folder: str) -> Iterator[str]:
    # HTTP/1.1, as client libraries speak it: over HTTP/2, HAProxy 2.6 loses its answers to large requests.
    tls = f" ssl crt {folder}/front.pem alpn http/1.1" if declared.tls else ""
    yield f"bind {address}:{declared.port}{tls}"
    if declared.virtual_address is not None:
        # Open also where the address is not at the moment.
        yield f"bind {declared.virtual_address}:{declared.port}{tls} transparent"


def _tls(declared: Front) -> Iterator[str]:
    if declared.tls:
        yield "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
        yield f"ssl-default-bind-ciphers {_CIPHERS}"


def _one_request(cluster: ValidCluster) -> Iterator[str]:
    """Yield what keeps a connection to a router from being used for a second request.

    Upstream's script (uvicorn) closes a connection that was idle for 5 s: a request that is sent at that
    moment would be lost. vllm-router (hyper) closes none; with connections kept, the front does 1.6 times as
    many requests (docs/performance.md).
    """
    if cluster.declaration.router == "upstream":
        yield "option http-server-close"


def _conditional(feature: str, line: str) -> Iterator[str]:
    """Yield a line that holds only where HAProxy was built with a feature."""
    yield f".if feature({feature})"
    yield line
    yield ".endif"


def _error(status: int, message: str, code: str, more: str = "", text: str = "string") -> str:
    """Return an answer with an error in the shape of the OpenAI API, as HAProxy's rules have it.

    ``more``: headers. ``text``: how HAProxy reads the message, ``string`` or ``lf-string``.
    """
    kind = '"type":"invalid_request_error","param":null'
    body = f'{{"error":{{"message":"{message}",{kind},"code":"{code}"}}}}'
    tail = f" {more}" if more else ""
    return f"return status {status} content-type application/json {text} '{body}'{tail}"


def _keys(declared: Front, folder: str) -> Iterator[str]:
    if declared.keys:
        yield f"http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower,map_str({folder}/keys.map)"
        more = "hdr www-authenticate Bearer"
        refusal = _error(401, "The API key is missing or wrong.", "invalid_api_key", more)
        yield f"http-request {refusal} unless {{ var(txn.key) -m found }}"
        yield "http-request track-sc0 var(txn.key) table keys"


def _rate(declared: Front) -> Iterator[str]:
    limit = declared.requests_per_minute
    if limit is not None and declared.keys:
        message = f"This API key may send {limit} requests in a minute."
        refusal = _error(429, message, "rate_limit_exceeded", "hdr retry-after 10")
        yield f"http-request {refusal} if {{ sc_http_req_rate(0) gt {limit} }}"


# The statuses with which a router refuses a request in plain text, and the code of the error.
_REFUSED = {
    400: "bad_request",
    404: "not_found",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "unprocessable_entity",
    429: "rate_limit_exceeded",
}


def _refusals() -> Iterator[str]:
    """Yield the rules that put a router's refusal in plain text into the shape of the OpenAI API."""
    for status, code in _REFUSED.items():
        answer = _error(status, "%[var(txn.said)]", code, text="lf-string")
        yield f"http-response {answer} if {{ status {status} }} {{ var(txn.said) -m found }}"


def _models(cluster: ValidCluster, folder: str) -> Iterator[str]:
    """Yield how the engines are asked for the models."""
    if cluster.declaration.api_key:
        yield (
            f'http-request set-header authorization "Bearer %[str(engines),map_str({folder}/engines.map)]"'
        )
    engines: list[EndpointDict] = [*backends(cluster, "decoder"), *backends(cluster, "prefiller")]
    for number, engine in enumerate(engines[:_MODELS_OF]):
        yield f"server engine{number} {engine['host']}:{engine['port']} check"
