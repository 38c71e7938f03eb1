# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the router between clients and engines: its kind, its options, and who can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.router import UPSTREAM_COMPUTED, VLLM_ROUTER_COMPUTED
from ..routers import Kind, Option, given_options, vllm_router
from ..secrecy import in_router
from ..topology import connector_names, joined, proxy_connector, router_options
from ..values import SAME, did_you_mean
from .base import Context, additional_config, is_on, rule

_SOURCE = "vllm-router 0.1.17: vllm_router/router_args.py"


def _vllm_router(c: Context) -> bool:
    return c.cluster.declaration.router == "vllm_router"


def _name(c: Context) -> str:
    """The router, for a sentence."""
    if _vllm_router(c):
        return f"vllm-router {vllm_router().version}"
    return c.cluster.release.proxy_scripts[proxy_connector(c.cluster)]


def _given(c: Context) -> Iterator[Option]:
    """The options of pd_router_args; none without a router."""
    if not c.cluster.colocated:
        yield from given_options(router_options(c.cluster), c.cluster.declaration.router_args)


def _computed(c: Context) -> Mapping[str, str]:
    return VLLM_ROUTER_COMPUTED if _vllm_router(c) else UPSTREAM_COMPUTED


@rule(
    "PD542",
    ERROR,
    "vllm-router does not pass on requests for a connector that pushes the KV cache",
    cure="set pd_router to upstream, or pd_kv_connector to MooncakeConnectorV1",
    source=(
        "A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_layerwise_server_example.py:544 "
        "(/v1/metaserver)"
    ),
)
def pulled_caches(r: Rule, c: Context) -> Iterator[Finding]:
    if not _vllm_router(c) or c.cluster.colocated:
        return
    for instance in c.instances("pd_kv_connector", "pd_kv_extra_config"):
        for name in connector_names(instance.settings):
            connector = c.cluster.release.connectors.get(name)
            if connector is not None and connector.listener == "decoder":
                yield r.at(
                    f"with {name} the decoder is asked first and calls /v1/metaserver of the proxy for the "
                    "prefill: vllm-router asks the prefiller first and has no such path",
                    instance=instance.name,
                    variable="pd_router",
                    seen="vllm_router",
                    expected="upstream",
                )


@rule(
    "PD543",
    WARNING,
    "Behind vllm-router no decoder hands preempted requests back",
    cure=(
        "remove recompute_scheduler_enable from additional-config of the decoders: they then recompute such "
        "requests themselves; or set pd_router to upstream"
    ),
    source=(
        "A@v0.13.0:vllm_ascend/core/recompute_scheduler.py:229; "
        "A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:767"
    ),
)
def preempted_requests(r: Rule, c: Context) -> Iterator[Finding]:
    """The upstream script asks for another prefill of what it has; vllm-router passes the end on."""
    if not _vllm_router(c) or c.cluster.colocated:
        return
    for instance in c.instances("pd_engine_args", "pd_profile", role="decoder"):
        if is_on(additional_config(instance.head).get("recompute_scheduler_enable")):
            yield r.at(
                "a request that the decoder preempts, because its cache is full, ends there with stop_reason "
                "recomputed: only the upstream script continues it, behind vllm-router the answer is cut off",
                instance=instance.name,
                variable="pd_engine_args",
                seen="recompute_scheduler_enable: true",
                expected="not set",
            )


@rule(
    "PD452",
    ERROR,
    "Every option of pd_router_args exists in the router",
    cure="correct the option's name, or remove it",
    source=f"{_SOURCE}; A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:438",
)
def options_known(r: Rule, c: Context) -> Iterator[Finding]:
    options = router_options(c.cluster)
    for option in _given(c):
        if option.name in options:
            continue
        other = option.name in vllm_router().options and not _vllm_router(c)
        yield r.at(
            f"{_name(c)} has no --{option.spelt}{did_you_mean(option.name, options, SAME)}",
            variable="pd_router_args",
            seen=option.spelt,
            expected=f"one of {joined(sorted(set(options) - set(_computed(c))), 60)}",
            cure="remove it, or set pd_router to vllm_router, which has it" if other else None,
        )


@rule(
    "PD453",
    ERROR,
    "Options of the router that the plan determines are not set by hand",
    cure="remove the option, and set the variable that determines it",
    source="docs/variables.md",
)
def options_computed(r: Rule, c: Context) -> Iterator[Finding]:
    computed = _computed(c)
    for option in _given(c):
        if option.name in computed and option.value is not None:
            yield r.at(
                f"--{option.name} of the router is determined by the plan",
                variable="pd_router_args",
                seen=f"{option.spelt}: {shown(option.value, 60)}",
                expected=f"decided by {computed[option.name]}",
            )


@rule(
    "PD454",
    ERROR,
    "Every option of pd_router_args has a value that the router accepts",
    cure="correct the value; use true for a switch, a value for any other option, null to remove a default",
    source=f"{_SOURCE}, and its ConfigValidator",
)
def option_values(r: Rule, c: Context) -> Iterator[Finding]:
    options = router_options(c.cluster)
    for option in _given(c):
        if option.value is None or option.name not in options:
            continue
        expected = _other_kind(options[option.name], option.value)
        if expected is None and _vllm_router(c):
            expected = _out_of_range(option, options[option.name])
        if expected is not None:
            yield r.at(
                f"--{option.name} of the router takes {expected}",
                variable="pd_router_args",
                seen=f"{option.spelt}: {shown(option.value, 80)}",
                expected=expected,
            )


# As Python's int() and float() read them.
_NUMBERS = {
    "int": (r"\s*[-+]?[0-9]+(_[0-9]+)*\s*", "a whole number"),
    "float": (
        r"\s*[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?\s*|[-+]?(?i:inf|infinity|nan)",
        "a number",
    ),
}


def _other_kind(kind: Kind, value: Any) -> str | None:
    """Describe what the parser accepts if a value is certainly wrong, else None."""
    if kind == "switch":
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, bool):
        return "a value"
    if kind in ("words", "repeated"):
        items = value if isinstance(value, list) else [value]
        plain = all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items)
        return None if plain and items else "a value, or a list of values"
    if isinstance(value, list) or value == "":
        return "one value"
    if isinstance(kind, tuple):
        return None if str(value) in kind else f"one of {joined(kind, 8)}"
    pattern, wanted = _NUMBERS.get(kind, ("(?s).*", "text"))
    if kind in _NUMBERS and isinstance(value, Mapping):
        return wanted
    return None if re.fullmatch(pattern, str(value)) else wanted


def _out_of_range(option: Option, kind: Kind) -> str | None:
    """Describe the range of a number that vllm-router stops at, None if it is inside."""
    if kind not in ("int", "float"):
        return None
    value = float(str(option.value).replace("_", ""))
    router = vllm_router()
    low = router.at_least.get(option.name, 0 if kind == "int" else None)
    high = router.at_most.get(option.name)
    if low is not None and value < low:
        return f"a number from {low:g} up"
    if high is not None and not 0 <= value <= high:
        return f"a number from 0 to {high:g}"
    return None


@rule(
    "PD455",
    ERROR,
    "A policy that compares two backends has two",
    cure="remove the policy, or choose another one",
    source="vllm-router 0.1.17: src/config/validation.rs (Power-of-two policy requires at least 2 workers)",
)
def two_to_compare(r: Rule, c: Context) -> Iterator[Finding]:
    if not _vllm_router(c):
        return
    given = {option.name: option.value for option in _given(c)}
    for name, role in (("prefill-policy", "prefiller"), ("decode-policy", "decoder")):
        backends = sum(len(node.api_ports) for i in c.cluster.instances if i.role == role for node in i.nodes)
        if given.get(name) == "power_of_two" and backends < 2:
            yield r.at(
                f"--{name} power_of_two needs at least two {role}s",
                variable="pd_router_args",
                seen=f"{backends} API of a {role}",
                expected="2 or more",
            )


@rule(
    "PD456",
    WARNING,
    "No secret is on the router's command line",
    cure="set pd_api_key: the router reads it from a file that root can read",
    source="docs/variables.md",
)
def router_secrets(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for place in dict.fromkeys(place for place, _ in in_router(c.cluster.declaration)):
        yield r.at(
            f"{shown(place, 80)} looks like a secret: it is written to the router's command line, which "
            "every user of the server can read, and to the plan's files",
            variable="pd_router_args",
            seen=f"{shown(place, 80)} (value not shown)",
        )


@rule(
    "PD457",
    WARNING,
    "The settings of a router take effect",
    cure="remove them, or set pd_mode to disaggregated",
    source="docs/architecture.md",
)
def router_runs(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    if not c.cluster.colocated:
        return
    set_here = {
        "pd_router": declaration.router != "upstream",
        "pd_router_args": bool(declaration.router_args),
    }
    for variable in (name for name, is_set in set_here.items() if is_set):
        yield r.at(
            f"{variable} has no effect: a colocated engine is used without a router",
            variable=variable,
            expected="not set",
        )


def _front(c: Context) -> bool:
    """Whether clients reach the router only through a front that asks for keys."""
    front = c.cluster.declaration.front
    return front is not None and bool(front.keys)


@rule(
    "PD614",
    WARNING,
    "With a key for the engines, only those who may use them reach the router",
    cure="set pd_front_port and pd_front_api_keys, or let only trusted addresses reach the port",
    source="A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:557, 882",
)
def key_is_sent(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    if not declaration.api_key or not c.cluster.proxies or _front(c):
        return
    message = "the router sends pd_api_key to the engines itself: whoever reaches its port needs no key"
    connector = c.cluster.release.connectors[proxy_connector(c.cluster)]
    if not _vllm_router(c) and connector.elastic:
        message += (
            ", and can have the key and all prompts sent to an address of their own (POST /instances/add)"
        )
    yield r.at(
        message,
        variable="pd_api_key",
        seen=f"port {declaration.proxy_port} of {joined(proxy.host for proxy in c.cluster.proxies)}",
        expected="a port that only trusted addresses reach",
    )
