# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the KV transfer between prefillers and decoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..connectors import Connector
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..handshakes import connector_of
from ..model import Instance, Role
from ..topology import joined
from .base import Context, block_size, context_parallel, flag_number, rule

OWN_SIDE = {"prefiller": "prefill", "decoder": "decode"}


def transferring(
    c: Context, *variables: str, role: Role | None = None
) -> Iterator[tuple[Instance, Connector]]:
    """Yield the instances that transfer caches with a connector that the collection has data for."""
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_kv_connector", *variables, role=role):
        connector = connector_of(c.cluster, instance)
        if connector is not None:
            yield instance, connector


def configured_sizes(extra: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """Return the sizes configured for one side; empty if they are not a mapping."""
    sizes = extra.get(side)
    return sizes if isinstance(sizes, Mapping) else {}


def pairs(c: Context, *variables: str) -> Iterator[tuple[Instance, Instance, Connector]]:
    """Yield each decoder with one prefiller of each size, so that the number of pairs stays linear."""
    if c.cluster.colocated:
        return
    prefillers = list(
        {
            (i.parallel, i.settings.profile.name, block_size(i.head)): i
            for i in c.instances(*variables, role="prefiller")
        }.values()
    )
    for decoder, connector in transferring(c, *variables, role="decoder"):
        for prefiller in prefillers[:8]:
            yield prefiller, decoder, connector


@rule(
    "PD507",
    ERROR,
    "Prefillers and decoders have the same block size, or sizes that the connector can split",
    cure=(
        "set block-size to the same number on both sides (128 is forced with prefix caching or chunked "
        "prefill)"
    ),
    source=(
        "A@v0.13.0:vllm_ascend/utils.py:1078-1101 (refresh_block_size); "
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:1419; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:2648"
    ),
)
def one_block_size(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in pairs(c, "pd_parallel", "pd_engine_args", "pd_profile"):
        p, d = block_size(prefiller.head), block_size(decoder.head)
        if not p or not d or p == d:
            continue
        whole = context_parallel(prefiller) * context_parallel(decoder) == 1
        together = {
            "same": False,
            "multiple": whole and d % p == 0,
            "divisible": (whole and p % d == 0) or d % p == 0,
        }
        if not together[connector.block_sizes]:
            yield r.at(
                f"blocks of {p} tokens in {prefiller.name} cannot be read as blocks of {d} tokens in "
                f"{decoder.name}",
                instance=decoder.name,
                variable="pd_engine_args",
                seen=f"block-size {p} in {prefiller.name}, {d} in {decoder.name}",
                expected="the same block size",
            )


@rule(
    "PD508",
    WARNING,
    "Engine ids are unique, per node or per instance",
    cure="leave pd_engine_id unset to have it computed, or set it for each host",
    source=(
        "the guide; vllm-ascend appends a random suffix to each id (A@v0.13.0:vllm_ascend/platform.py:174, "
        "A@v0.18.0:vllm_ascend/platform.py:267, A@v0.23.0:vllm_ascend/platform.py:486)"
    ),
)
def engine_ids_unique(r: Rule, c: Context) -> Iterator[Finding]:
    owner: dict[str, Instance] = {}
    for instance in c.instances("pd_engine_id"):
        for engine_id in dict.fromkeys(node.engine_id for node in instance.nodes):
            other = owner.setdefault(engine_id, instance)
            if other is instance:
                continue
            message = (
                f"{other.name} and {instance.name} have one engine id: vllm-ascend keeps them apart by a "
                "suffix of its own, people who read logs do not"
            )
            hosts = [node.host for node in instance.nodes if node.engine_id == engine_id]
            yield r.at(
                message,
                host=hosts[0] if len(hosts) == 1 else None,
                instance=instance.name,
                variable="pd_engine_id",
                seen=f"{engine_id} in {other.name} and in {instance.name}",
                expected="a different id in each instance",
            )


@rule(
    "PD509",
    WARNING,
    "Each node of a prefiller has its own engine id",
    cure="leave pd_engine_id unset, or set it per host",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
def engine_ids_per_node(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_id", role="prefiller"):
        if instance.external:
            continue  # one id for all its nodes, as the guides of external data parallel have it
        by_id: dict[str, list[str]] = {}
        for node in instance.nodes:
            by_id.setdefault(node.engine_id, []).append(node.host)
        for engine_id, hosts in by_id.items():
            if len(hosts) > 1:
                yield r.at(
                    f"{joined(hosts)} have the same engine id; the guide requires one per node",
                    instance=instance.name,
                    variable="pd_engine_id",
                    seen=engine_id,
                    expected="a different id on each node",
                )


@rule(
    "PD510",
    ERROR,
    "Prefillers and decoders use the same connector",
    cure="set pd_kv_connector once, in group_vars/all",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py, mooncake_layerwise_connector.py",
)
def one_connector(r: Rule, c: Context) -> Iterator[Finding]:
    """For connectors that combine several, one in common is enough; compatibility of connectors that are not
    planned here is not known."""
    if c.cluster.colocated:
        return
    planned = c.cluster.release.connectors.keys()
    first: Instance | None = None
    for instance in c.instances("pd_kv_connector", "pd_kv_extra_config"):
        first = first or instance
        own, first_own = protocols(instance), protocols(first)
        if own.isdisjoint(first_own) and (own | first_own) <= planned:
            yield r.at(
                f"{instance.name} and {first.name} would use different protocols",
                instance=instance.name,
                variable="pd_kv_connector",
                seen=instance.settings.connector,
                expected=first.settings.connector,
            )


def protocols(instance: Instance) -> frozenset[str]:
    """The connector's name; for MultiConnector, the names of the connectors inside it."""
    inner = [entry.get("kv_connector") for entry in nested(instance.settings.kv_extra_config)]
    return frozenset(name for name in inner if isinstance(name, str)) or frozenset(
        [instance.settings.connector]
    )


def nested(extra: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the connectors inside MultiConnector, as far as they are mappings."""
    listed = extra.get("connectors")
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


@rule(
    "PD537",
    ERROR,
    "The hybrid KV cache manager is on only with a connector that supports it",
    cure="remove disable-hybrid-kv-cache-manager from pd_engine_args",
    source="V@0.13.0:vllm/distributed/kv_transfer/kv_connector/factory.py:57; hybrid in data/connectors",
)
def hybrid_manager(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_engine_args"):
        if not connector.hybrid and instance.head.flag("disable-hybrid-kv-cache-manager") is False:
            yield r.at(
                f"Connector {connector.class_name} does not support HMA but HMA is enabled. Please set "
                "`--disable-hybrid-kv-cache-manager`.",
                instance=instance.name,
                variable="pd_engine_args",
                seen="disable-hybrid-kv-cache-manager: false",
                expected="not set",
            )


@rule(
    "PD513",
    WARNING,
    "Prefillers and decoders accept requests of the same length",
    cure="set max-model-len to the same number on both sides",
    source=(
        "A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py (one request "
        "to both)"
    ),
)
def one_length(r: Rule, c: Context) -> Iterator[Finding]:
    first: tuple[Instance, int] | None = None
    for instance in c.instances("pd_engine_args", "pd_profile"):
        length = flag_number(instance.head, "max-model-len")
        if length is None:
            continue
        first = first or (instance, length)
        if length != first[1]:
            yield r.at(
                f"a request that {first[0].name} accepts may be too long for {instance.name}, or the other "
                "way round",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-model-len {first[1]} in {first[0].name}, {length} in {instance.name}",
                expected="the same length",
            )


# Read by int() when a worker creates its connector.
_TIMES = ("ASCEND_TRANSFER_TIMEOUT", "HCCL_RDMA_TIMEOUT", "HCCL_RDMA_RETRY_CNT")


@rule(
    "PD540",
    ERROR,
    "Transfer timeouts are whole numbers",
    cure="correct it in pd_engine_env",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/utils.py:56-65, "
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/utils/utils.py:51-57"
    ),
)
def whole_times(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for instance, node in c.nodes("pd_engine_env"):
        for name in _TIMES:
            value = node.env.get(name)
            if value is None or (name == "ASCEND_TRANSFER_TIMEOUT" and not value):
                continue
            if name != "ASCEND_TRANSFER_TIMEOUT" and node.env.get("ASCEND_TRANSFER_TIMEOUT"):
                continue  # then the others are not read
            if not whole_number(value):
                yield r.at(
                    f"invalid literal for int() with base 10: {value!r}",
                    host=node.host if len(instance.nodes) > 1 else None,
                    instance=instance.name,
                    variable="pd_engine_env",
                    seen=f"{name}={shown(value, 40)}",
                    expected="a whole number",
                )


def whole_number(text: str) -> bool:
    """Whether int() accepts the value; values that the launch script expands are not known here."""
    if "$" in text:
        return True
    try:
        int(text)
    except ValueError:
        return False
    return True


@rule(
    "PD541",
    ERROR,
    "A decoder's kv_port equals that of a multi-node prefiller, or is far from it",
    cure="leave pd_kv_port unset to have it computed, or set it 100 apart for each node",
    source="A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:3495-3512",
)
def own_port(r: Rule, c: Context) -> Iterator[Finding]:
    """It computes a rank's number from its own kv_port, and connects to the wrong rank's host."""
    spread = [i for i, _ in transferring(c, "pd_kv_port", "pd_parallel", role="prefiller") if i.spans_nodes]
    for decoder, connector in transferring(c, "pd_kv_port", role="decoder"):
        if not connector.own_port_first:
            continue
        for prefiller in spread:
            distance = abs(prefiller.kv_port - decoder.kv_port)
            if 0 < distance < prefiller.parallel.world_size:
                yield r.at(
                    f"{decoder.name} would look for ranks of {prefiller.name} on the wrong node: it counts "
                    "them from its own kv_port",
                    instance=decoder.name,
                    variable="pd_kv_port",
                    seen=f"{prefiller.kv_port} in {prefiller.name}, {decoder.kv_port} in {decoder.name}",
                    expected=(
                        f"{prefiller.kv_port}, or at least {prefiller.parallel.world_size} ports from it"
                    ),
                )
