# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The command lines of the routers, option by option."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....module_utils._serving.router_list import backend_words
from ..model import Proxy, ValidCluster
from ..plan_dict import EndpointDict
from ..routers import Kind, Router, given_options
from ..topology import router_options
from .arguments import Argument

# Options that the plan writes itself, with what determines each; pd_router_args cannot set them.
_BACKENDS = "the groups prefiller and decoder, and pd_api_port"
UPSTREAM_COMPUTED: Mapping[str, str] = {
    "host": "pd_node_ip",
    "port": "pd_proxy_port",
    "prefiller-hosts": _BACKENDS,
    "prefiller-ports": _BACKENDS,
    "decoder-hosts": _BACKENDS,
    "decoder-ports": _BACKENDS,
}
VLLM_ROUTER_COMPUTED: Mapping[str, str] = {
    "host": "pd_node_ip",
    "port": "pd_proxy_port",
    "prometheus-host": "pd_node_ip",
    "prometheus-port": "pd_router_metrics_port",
    "vllm-pd-disaggregation": "pd_mode",
    "kv-connector": "pd_kv_connector",
    "prefill": _BACKENDS,
    "decode": _BACKENDS,
    "worker-urls": _BACKENDS,
    # Other ways to find the backends, in which the planned ones do not count.
    "service-discovery": _BACKENDS,
    "vllm-discovery-address": _BACKENDS,
    # A balancer in Python for debugging, and a router for several models.
    "mini-lb": "pd_router",
    "enable-igw": "pd_router",
}

# What vllm-router is told unless pd_router_args says otherwise (docs/upstream-facts.md, "vllm-router").
DEFAULTS: Mapping[str, Any] = {
    "policy": "round_robin",
    # A dead engine gets no more requests after 2 s, instead of 3 minutes.
    "health-check-interval-secs": 1,
    "health-failure-threshold": 2,
    "worker-startup-check-interval": 1,
    # The time of a whole request with its stream: a day, since neither the engines nor the upstream script
    # have a limit.
    "request-timeout-secs": 86400,
    # The engines queue as many as they are sent.
    "max-concurrent-requests": 1000000,
    # A request is sent once: a second prefill would leave the first one's cache waiting for its decoder.
    "disable-retries": True,
    # The health checks decide. An open breaker would answer 503 for a minute, though the engines serve.
    "disable-circuit-breaker": True,
}


def upstream_arguments(
    cluster: ValidCluster, which: Proxy, prefillers: list[EndpointDict], decoders: list[EndpointDict]
) -> list[Argument]:
    """Return the options of the upstream script."""
    return [
        Argument(("--port", str(which.port))),
        Argument(("--host", which.address or cluster.addresses[which.host])),
        *backend_arguments("upstream", prefillers, decoders),
        *_given(cluster, {}),
    ]


def vllm_router_arguments(
    cluster: ValidCluster, which: Proxy, prefillers: list[EndpointDict], decoders: list[EndpointDict]
) -> list[Argument]:
    """Return the options of vllm-router; ``nixl`` names the protocol in which decoders pull the cache."""
    address = which.address or cluster.addresses[which.host]
    return [
        Argument(("--vllm-pd-disaggregation",)),
        Argument(("--kv-connector", "nixl")),
        *backend_arguments("vllm_router", prefillers, decoders),
        Argument(("--host", address)),
        Argument(("--port", str(which.port))),
        Argument(("--prometheus-host", address)),
        Argument(("--prometheus-port", str(which.metrics_port))),
        *_given(cluster, DEFAULTS),
    ]


def backend_arguments(
    router: Router, prefillers: Sequence[EndpointDict], decoders: Sequence[EndpointDict]
) -> list[Argument]:
    """Return the options with which a router is told its backends."""
    return [Argument(tuple(words)) for words in backend_words(router, prefillers, decoders)]


def _given(cluster: ValidCluster, defaults: Mapping[str, Any]) -> Iterator[Argument]:
    """Yield the defaults with pd_router_args merged over them; null removes an option."""
    options = router_options(cluster)
    given = {option.name: option.value for option in given_options(options, cluster.declaration.router_args)}
    for name, value in {**defaults, **given}.items():
        if value is not None:
            yield from _option(name, options[name], value)


def _option(name: str, kind: Kind, value: Any) -> Iterator[Argument]:
    if kind == "switch":
        if value is True:
            yield Argument((f"--{name}",))
    elif kind == "words":
        words = value if isinstance(value, list) else [value]
        yield Argument((f"--{name}", *(_text(word) for word in words)))
    elif kind == "repeated":
        for item in value if isinstance(value, list) else [value]:
            yield Argument((f"--{name}", _text(item)))
    else:
        word = _text(value)
        # argparse takes a word that begins with a dash for an option.
        yield Argument((f"--{name}={word}",) if word.startswith("-") else (f"--{name}", word))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def backends(cluster: ValidCluster, role: str) -> list[EndpointDict]:
    """Return every API of a role: the heads' APIs, or with external data parallel those of all ranks.
    Headless nodes serve none."""
    return [
        {"host": cluster.addresses[node.host], "port": port}
        for instance in cluster.instances
        if instance.role == role
        for node in instance.nodes
        for port in node.api_ports
    ]
