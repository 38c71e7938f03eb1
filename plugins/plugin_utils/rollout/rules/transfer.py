# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the KV transfer between prefillers and decoders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..connectors import Connector
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.transfer import kv_extra_config
from ..model import Instance, Role
from ..topology import connector_of, joined
from .base import Context, block_size, context_parallel, flag_number, rule

OWN_SIDE = {"prefiller": "prefill", "decoder": "decode"}


def transferring(
    c: Context, *variables: str, role: Role | None = None
) -> Iterator[tuple[Instance, Connector]]:
    """The instances that transfer caches with a connector whose facts are known."""
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_kv_connector", *variables, role=role):
        connector = connector_of(c.cluster, instance)
        if connector is not None:
            yield instance, connector


def sizes_told(extra: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """What is told of one side, empty where that is no mapping."""
    sizes = extra.get(side)
    return sizes if isinstance(sizes, Mapping) else {}


@rule(
    "PD501",
    ERROR,
    "kv_connector_extra_config says the engine's own sizes",
    cure="remove tp_size and dp_size from pd_kv_extra_config: they are computed from pd_parallel",
    source="A@v0.13.0:vllm_ascend/utils.py:1111-1139",
)
def own_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    words = {"tp_size": ("tensor", "tensor"), "dp_size": ("data", "data")}
    for instance, _ in transferring(c, "pd_parallel", "pd_kv_extra_config"):
        if not instance.settings.kv_extra_config:
            continue
        side = OWN_SIDE[instance.role]
        own = sizes_told(kv_extra_config(c.cluster, instance, instance.head), side)
        for key, (word, attribute) in words.items():
            if key not in own:
                continue
            expected, got = getattr(instance.parallel, attribute), own[key]
            if got != expected or isinstance(got, bool):
                yield r.at(
                    f"KV transfer '{side}' config has a conflicting {word} parallel size. Expected "
                    f"{expected}, but got "
                    f"{shown(got, 40)}.",
                    instance=instance.name,
                    variable="pd_kv_extra_config",
                    seen=f"{side}.{key}: {shown(got, 40)}",
                    expected=f"{side}.{key}: {expected}",
                )


@rule(
    "PD502",
    ERROR,
    "All engines are told the same sizes of both sides, as far as the connector trusts them",
    cure=(
        "give all prefillers the same sizes, and all decoders; pd_kv_extra_config cannot differ between them"
    ),
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197; the keys: shared in "
        "plugins/plugin_utils/rollout/data/connectors"
    ),
)
def both_sides(r: Rule, c: Context) -> Iterator[Finding]:
    """The peer's sizes are not cross-checked at start: a difference shows as wrong text, or as failed
    transfers."""
    first: Instance | None = None
    told: Mapping[str, object] | None = None
    for instance, connector in transferring(c, "pd_parallel", "pd_kv_extra_config", "pd_engine_env"):
        if connector.tensor_order == "at_request" and instance.settings.profile.attention == "mla":
            continue  # its own sizes go with each request, and with MLA nothing else is read
        sizes = _trusted(connector, kv_extra_config(c.cluster, instance, instance.head))
        if first is None or told is None:
            first, told = instance, sizes
        elif sizes != told:
            names = [name for name in sizes if sizes[name] != told.get(name)]
            yield r.at(
                f"{instance.name} is told other sizes than {first.name}",
                instance=instance.name,
                variable="pd_parallel",
                seen=", ".join(f"{name} {shown(sizes[name], 40)}" for name in names),
                expected=", ".join(f"{name} {shown(told.get(name), 40)}" for name in names),
            )


def _trusted(connector: Connector, extra: Mapping[str, Any]) -> dict[str, object]:
    """The told sizes that must be alike everywhere, by their full names."""
    defaults = {"pp_size": 1}
    return {
        f"{side}.{key}": sizes_told(extra, side).get(key, defaults.get(key))
        for side, keys in connector.shared.items()
        for key in keys
    }


def _pairs(c: Context, *variables: str) -> Iterator[tuple[Instance, Instance, Connector]]:
    """Each decoder with the prefillers of different sizes: one of each kind, so that the work stays
    linear."""
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
    "PD503",
    ERROR,
    "A decoder has at most as many tensor ranks as a prefiller, where the connector asks for it",
    cure="lower the decoder's tensor, or raise the prefiller's",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1105, mooncake_layerwise_connector.py:833 "
        "(the latter until v0.13.0: PD517)"
    ),
)
def tensor_order(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in _pairs(c, "pd_parallel"):
        p, d = prefiller.parallel.tensor, decoder.parallel.tensor
        if connector.tensor_order == "at_start" and p < d:
            yield r.at(
                f"prefill_tp_size: {p} must be greater than or equal to the decode_tp_size: {d}",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"tensor {p} in {prefiller.name}, {d} in {decoder.name}",
                expected=f"at most {p} in {decoder.name}",
            )
    for instance, connector in transferring(c, "pd_kv_extra_config"):
        if connector.tensor_order != "at_start" or not instance.settings.kv_extra_config:
            continue
        extra = kv_extra_config(c.cluster, instance, instance.head)
        told_p, told_d = (sizes_told(extra, side).get("tp_size") for side in ("prefill", "decode"))
        if isinstance(told_p, int) and isinstance(told_d, int) and told_p < told_d:
            yield r.at(
                f"prefill_tp_size: {told_p} must be greater than or equal to the decode_tp_size: {told_d}",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"prefill.tp_size: {told_p}, decode.tp_size: {told_d}",
                expected="the sizes of pd_parallel",
                cure="remove tp_size from pd_kv_extra_config: it is computed from pd_parallel",
            )


@rule(
    "PD504",
    ERROR,
    "Without MLA, the prefiller's tensor size is a multiple of the decoder's",
    cure="choose a decoder's tensor that divides the prefiller's",
    source="A@v0.13.0:vllm_ascend/ascend_config.py:104",
)
def tensor_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in _pairs(c, "pd_parallel", "pd_profile"):
        p, d = prefiller.parallel.tensor, decoder.parallel.tensor
        told = connector.tensor_order == "at_start" and p < d  # by PD503
        if decoder.settings.profile.attention == "gqa" and p % d and not told:
            yield r.at(
                "Prefill TP size must be divisible by Decode TP size.",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"tensor {p} in {prefiller.name}, {d} in {decoder.name}",
                expected=f"a divisor of {p} in {decoder.name}",
            )


@rule(
    "PD505",
    ERROR,
    "The prefiller's context-parallel ranks are a multiple of the decoder's",
    cure="lower the decoder's decode_context, or raise the prefiller's prefill_context or decode_context",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1360",
)
def context_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    """A bare assertion upstream, at the first request: minutes after a start that looked good."""
    for prefiller, decoder, _ in _pairs(c, "pd_parallel"):
        p, d = context_parallel(prefiller), context_parallel(decoder)
        if p % d:
            yield r.at(
                "(remote_pcp_size × remote_dcp_size) % (pcp_size × dcp_size) == 0 fails: "
                f"{p} % {d} = {p % d}",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"{p} context-parallel ranks in {prefiller.name}, {d} in {decoder.name}",
                expected=f"a divisor of {p} in {decoder.name}",
            )


@rule(
    "PD506",
    ERROR,
    "Without MLA, a decoder's key/value heads per rank are a multiple of a prefiller's",
    cure="choose tensor sizes whose heads per rank divide",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1362-1367",
)
def heads_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in _pairs(c, "pd_parallel", "pd_profile"):
        profile = decoder.settings.profile
        if profile.attention != "gqa" or not profile.kv_heads:
            continue
        pushes = connector.tensor_order == "at_request"
        if not pushes and context_parallel(prefiller) == 1:
            continue
        p = math.ceil(profile.kv_heads / prefiller.parallel.tensor)
        # The layerwise connector divides by the decode context (A@v0.18.0:…/kv_transfer/utils/utils.py:95).
        ranks = decoder.parallel.decode_context if pushes else decoder.parallel.tensor
        d = math.ceil(profile.kv_heads / ranks)
        if d % p:
            yield r.at(
                f"d_node_heads_per_rank % p_node_heads_per_rank == 0 fails: {d} % {p} = {d % p}",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"{p} heads per rank in {prefiller.name}, {d} in {decoder.name}",
                expected=f"a multiple of {p} in {decoder.name}",
            )


@rule(
    "PD507",
    ERROR,
    "Prefiller and decoder have one block size, or sizes that the connector splits",
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
    for prefiller, decoder, connector in _pairs(c, "pd_parallel", "pd_engine_args", "pd_profile"):
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
                f"blocks of {p} tokens in {prefiller.name} cannot be read as blocks of {d} in {decoder.name}",
                instance=decoder.name,
                variable="pd_engine_args",
                seen=f"block-size {p} in {prefiller.name}, {d} in {decoder.name}",
                expected="one block size",
            )


@rule(
    "PD508",
    WARNING,
    "Engine ids are unique: one per node, or one per instance",
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
                expected="another id in each instance",
            )


@rule(
    "PD509",
    WARNING,
    "The nodes of one prefiller have an engine id each",
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
                    f"{joined(hosts)} have one engine id; the guide asks for one per node",
                    instance=instance.name,
                    variable="pd_engine_id",
                    seen=engine_id,
                    expected="another id on each node",
                )


@rule(
    "PD510",
    ERROR,
    "Prefillers and decoders use one connector",
    cure="set pd_kv_connector once, in group_vars/all",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py, mooncake_layerwise_connector.py",
)
def one_connector(r: Rule, c: Context) -> Iterator[Finding]:
    """Of connectors that are made of several, one that both have is enough; of those that are not planned
    here, who goes with whom is not known."""
    if c.cluster.colocated:
        return
    planned = c.cluster.release.connectors.keys()
    first: Instance | None = None
    for instance in c.instances("pd_kv_connector", "pd_kv_extra_config"):
        first = first or instance
        one, two = protocols(instance), protocols(first)
        if one.isdisjoint(two) and (one | two) <= planned:
            yield r.at(
                f"{instance.name} and {first.name} would speak different protocols",
                instance=instance.name,
                variable="pd_kv_connector",
                seen=instance.settings.connector,
                expected=first.settings.connector,
            )


def protocols(instance: Instance) -> frozenset[str]:
    """The connector's name; of one that is made of several, theirs."""
    inner = [entry.get("kv_connector") for entry in nested(instance.settings.kv_extra_config)]
    return frozenset(name for name in inner if isinstance(name, str)) or frozenset(
        [instance.settings.connector]
    )


def nested(extra: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The connectors that one of several is made of, as far as they are mappings."""
    listed = extra.get("connectors")
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


@rule(
    "PD537",
    ERROR,
    "The hybrid manager of caches is on only with a connector that knows it",
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
    "PD511",
    ERROR,
    "The layerwise connector runs without prefill context parallel, or with one context rank on each node",
    cure=(
        "use MooncakeConnectorV1, or set prefill_context to 1, or use a release from v0.21 on; with v0.18.0 "
        "a prefiller may have as many nodes as context ranks"
    ),
    source=(
        "vllm-ascend PRs 6627, 10019: its ports know no context rank before v0.21; "
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:1764, 548"
    ),
)
def layerwise_context(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_parallel"):
        sizes, nodes = instance.parallel, len(instance.nodes)
        if connector.prefill_context_parallel or sizes.prefill_context == 1:
            continue
        alone = instance.spans_nodes and nodes == sizes.prefill_context and sizes.pipeline == 1
        if connector.context_by_node and instance.role == "prefiller" and alone:
            continue
        yield r.at(
            f"the handshake ports of {connector.name} collide between context ranks at "
            f"{c.cluster.release.name}",
            instance=instance.name,
            variable="pd_parallel",
            seen=f"prefill_context {sizes.prefill_context} on {nodes} node{'s' if nodes > 1 else ''}",
            expected="prefill_context 1",
        )


@rule(
    "PD512",
    WARNING,
    "With this release a decoder of DeepSeek-V3.1 has more than one tensor rank",
    cure="raise the decoder's tensor",
    source="A@v0.13.0 release notes, known issues",
)
def decoder_tensor(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.release.limits.decoder_tensor_one:
        return
    for instance in c.instances("pd_parallel", "pd_profile", role="decoder"):
        if instance.parallel.tensor == 1 and instance.settings.profile.model == "DeepSeek-V3.1":
            yield r.at(
                "the release notes say that TP=1 on the decode node does not work",
                instance=instance.name,
                variable="pd_parallel",
                seen="tensor 1",
                expected="at least 2",
            )


@rule(
    "PD513",
    WARNING,
    "Prefiller and decoder take requests of one length",
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
                f"a request that {first[0].name} takes may be too long for {instance.name}, or the other "
                "way round",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-model-len {first[1]} in {first[0].name}, {length} in {instance.name}",
                expected="one length",
            )


@rule(
    "PD517",
    ERROR,
    "With the layerwise connector, a prefiller has at least as many groups of context ranks as a decoder",
    cure="lower the decoder's tensor, or the prefiller's decode_context",
    source=(
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:1328-1340, "
        "kv_transfer/utils/utils.py:69; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:1485-1496"
    ),
)
def context_groups(r: Rule, c: Context) -> Iterator[Finding]:
    """A bare assertion upstream, at the first request."""
    for prefiller, decoder, connector in _pairs(c, "pd_parallel", "pd_profile"):
        if connector.tensor_order != "at_request":
            continue
        profile = decoder.settings.profile
        heads = profile.kv_heads if profile.attention == "gqa" else 1
        if heads is None or (profile.attention is None and _enough_tensor(prefiller, decoder)):
            continue
        p, d = (_groups(instance, heads) for instance in (prefiller, decoder))
        if p < d:
            yield r.at(
                f"len(selected_p_cp_groups) == len(selected_d_cp_groups) fails: {p} and {d}",
                instance=decoder.name,
                variable="pd_parallel",
                seen=", ".join(
                    f"tensor {i.parallel.tensor}, decode_context {i.parallel.decode_context} in {i.name}"
                    for i in (prefiller, decoder)
                ),
                expected=f"tensor / decode_context at most {p} in {decoder.name}",
            )


def _enough_tensor(prefiller: Instance, decoder: Instance) -> bool:
    """Where the kind of attention is not known, only what fails with all kinds is an error: without MLA, one
    key/value head more makes one group of several ranks."""
    return prefiller.parallel.tensor >= decoder.parallel.tensor


def _groups(instance: Instance, heads: int) -> int:
    """Groups of tensor ranks that hold all key/value heads, and all parts of the context."""
    ranks = instance.parallel.tensor // heads
    return 1 if ranks == 0 else ranks // instance.parallel.decode_context


@rule(
    "PD527",
    ERROR,
    "A connector that knows no context ranks has the same decode context on both sides",
    cure="set decode_context to the same number on both sides, or use MooncakeConnectorV1",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py (no context rank is read)",
)
def same_decode_context(r: Rule, c: Context) -> Iterator[Finding]:
    """Each rank sends its blocks one for one, and with decode context a rank has some of them only."""
    for prefiller, decoder, connector in _pairs(c, "pd_parallel"):
        p, d = prefiller.parallel.decode_context, decoder.parallel.decode_context
        if connector.listener == "decoder" and connector.tensor_order == "at_start" and p != d:
            yield r.at(
                f"ranks of {prefiller.name} and {decoder.name} hold other blocks of a prompt, and these are "
                "sent one for one",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"decode_context {p} in {prefiller.name}, {d} in {decoder.name}",
                expected="one decode_context",
            )


@rule(
    "PD514",
    ERROR,
    "kv_connector_extra_config has the sizes that are read, and they are numbers",
    cure="remove that entry from pd_kv_extra_config: the sizes are computed from pd_parallel",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197, vllm_ascend/ascend_config.py:99; "
        "the keys: needs in plugins/plugin_utils/rollout/data/connectors"
    ),
)
def sizes_present(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_kv_extra_config", "pd_profile"):
        if not instance.settings.kv_extra_config:
            continue
        extra = kv_extra_config(c.cluster, instance, instance.head)
        without_mla = instance.settings.profile.attention != "mla"
        for side in ("prefill", "decode"):
            sizes, own = extra.get(side), side == OWN_SIDE[instance.role]
            needed = bool(connector.needs.get(side)) or without_mla
            value = sizes.get("tp_size") if isinstance(sizes, Mapping) else None
            wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
            if wrong and needed and not (own and isinstance(sizes, Mapping)):
                missing = f"{side}.tp_size: a whole number"
            elif not isinstance(sizes, Mapping) and (needed or own):
                missing = f"{side}: a mapping"
            else:
                continue  # what it has of its own side, PD501 compares
            yield r.at(
                f"{missing.partition(':')[0]} is read at start, and this fails without a word about why",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"{side}: {shown(sizes, 60)}",
                expected=missing,
            )


# Read by int() when a worker makes its connector.
_TIMES = ("ASCEND_TRANSFER_TIMEOUT", "HCCL_RDMA_TIMEOUT", "HCCL_RDMA_RETRY_CNT")


@rule(
    "PD540",
    ERROR,
    "Time-outs of the transfer are whole numbers",
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
    """Whether int() takes it; what a shell makes of a variable is not known here."""
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
    "A decoder's kv_port is that of a prefiller of several nodes, or far from it",
    cure="leave pd_kv_port unset to have it computed, or pin it 100 apart for each node",
    source="A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:3495-3512",
)
def own_port(r: Rule, c: Context) -> Iterator[Finding]:
    """It takes a rank's distance from its own kv_port for the rank's number, and asks the host of another."""
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
