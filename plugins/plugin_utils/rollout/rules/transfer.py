# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the KV transfer between prefillers and decoders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch import kv_extra_config
from ..model import Instance
from ..topology import joined
from ..values import did_you_mean
from .base import Context, block_size, context_parallel, flag_number, rule

_OWN_SIDE = {"prefiller": "prefill", "decoder": "decode"}


@rule(
    "PD500",
    ERROR,
    "The KV connector is one that the release plans with",
    cure="use one of the connectors of plugins/plugin_utils/rollout/data/connectors",
    source="A@v0.13.0:vllm_ascend/distributed/__init__.py",
)
def connector_known(r: Rule, c: Context) -> Iterator[Finding]:
    known = c.cluster.release.connectors
    for instance in c.instances("pd_kv_connector"):
        name = instance.settings.connector
        if name not in known:
            yield r.at(
                f"there is no connector {shown(name, 60)}{did_you_mean(name, known)}",
                instance=instance.name,
                variable="pd_kv_connector",
                seen=name,
                expected=" or ".join(known),
            )


@rule(
    "PD501",
    ERROR,
    "kv_connector_extra_config says the engine's own sizes",
    cure="remove prefill and decode from pd_kv_extra_config: they are computed",
    source="A@v0.13.0:vllm_ascend/utils.py:1111-1139",
)
def own_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    words = {"tp_size": ("tensor", "tensor"), "dp_size": ("data", "data")}
    for instance in c.instances("pd_parallel", "pd_kv_extra_config"):
        if not instance.settings.kv_extra_config:
            continue
        side = _OWN_SIDE[instance.role]
        own = kv_extra_config(c.cluster, instance, instance.head).get(side)
        for key, (word, attribute) in words.items():
            expected = getattr(instance.parallel, attribute)
            got = own.get(key) if isinstance(own, Mapping) else None
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
    "All engines are told the same sizes of both sides",
    cure=(
        "give all prefillers the same tensor and data sizes, and all decoders; pd_kv_extra_config "
        "cannot differ from them"
    ),
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197",
)
def both_sides(r: Rule, c: Context) -> Iterator[Finding]:
    """The peer's sizes are not cross-checked at start: a difference shows as wrong text, or as failed
    transfers."""
    first: Instance | None = None
    told: tuple[object, object] | None = None
    for instance in c.instances("pd_parallel", "pd_kv_extra_config"):
        extra = kv_extra_config(c.cluster, instance, instance.head)
        sizes = (extra.get("prefill"), extra.get("decode"))
        if first is None or told is None:
            first, told = instance, sizes
        elif sizes != told:
            yield r.at(
                f"{instance.name} is told other sizes than {first.name}",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"prefill {shown(sizes[0], 60)}, decode {shown(sizes[1], 60)}",
                expected=f"prefill {shown(told[0], 60)}, decode {shown(told[1], 60)}",
            )


def _pairs(c: Context, *variables: str) -> Iterator[tuple[Instance, Instance]]:
    """Each decoder with the prefillers of different sizes: one of each kind, so that the work stays
    linear."""
    prefillers = list(
        {
            (i.parallel, i.settings.profile.name, block_size(i.head)): i
            for i in c.instances(*variables, role="prefiller")
        }.values()
    )
    for decoder in c.instances(*variables, role="decoder"):
        for prefiller in prefillers[:8]:
            yield prefiller, decoder


@rule(
    "PD503",
    ERROR,
    "A decoder has at most as many tensor ranks as a prefiller",
    cure="lower the decoder's tensor, or raise the prefiller's",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1105",
)
def tensor_order(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder in _pairs(c, "pd_parallel"):
        p, d = prefiller.parallel.tensor, decoder.parallel.tensor
        if p < d:
            yield r.at(
                f"prefill_tp_size: {p} must be greater than or equal to the decode_tp_size: {d}",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"tensor {p} in {prefiller.name}, {d} in {decoder.name}",
                expected=f"at most {p} in {decoder.name}",
            )


@rule(
    "PD504",
    ERROR,
    "Without MLA, the prefiller's tensor size is a multiple of the decoder's",
    cure="choose a decoder's tensor that divides the prefiller's",
    source="A@v0.13.0:vllm_ascend/ascend_config.py:104",
)
def tensor_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder in _pairs(c, "pd_parallel", "pd_profile"):
        p, d = prefiller.parallel.tensor, decoder.parallel.tensor
        if decoder.settings.profile.attention == "gqa" and p >= d and p % d:
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
    for prefiller, decoder in _pairs(c, "pd_parallel"):
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
    for prefiller, decoder in _pairs(c, "pd_parallel", "pd_profile"):
        profile = decoder.settings.profile
        if profile.attention != "gqa" or not profile.kv_heads or context_parallel(prefiller) == 1:
            continue
        p = math.ceil(profile.kv_heads / prefiller.parallel.tensor)
        d = math.ceil(profile.kv_heads / decoder.parallel.tensor)
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
    "Prefiller and decoder have one block size",
    cure=(
        "set block-size to the same number on both sides (128 is forced with prefix caching or chunked "
        "prefill)"
    ),
    source="A@v0.13.0:vllm_ascend/utils.py:1078-1101 (refresh_block_size)",
)
def one_block_size(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder in _pairs(c, "pd_engine_args", "pd_profile"):
        p, d = block_size(prefiller.head), block_size(decoder.head)
        if p is not None and d is not None and p != d:
            yield r.at(
                f"blocks of {p} tokens in {prefiller.name} cannot be read as blocks of {d} in {decoder.name}",
                instance=decoder.name,
                variable="pd_engine_args",
                seen=f"block-size {p} in {prefiller.name}, {d} in {decoder.name}",
                expected="one block size",
            )


@rule(
    "PD508",
    ERROR,
    "Engine ids are unique: one per node, or one per instance",
    cure="leave pd_engine_id unset to have it computed, or set it for each host",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:688; the guide",
)
def engine_ids_unique(r: Rule, c: Context) -> Iterator[Finding]:
    owner: dict[str, Instance] = {}
    for instance in c.instances("pd_engine_id"):
        for engine_id in dict.fromkeys(node.engine_id for node in instance.nodes):
            other = owner.setdefault(engine_id, instance)
            if other is instance:
                continue
            if other.role != instance.role:
                message = f"Conflict engine id {engine_id} with local engine id {engine_id}."
            else:
                message = (
                    f"{other.name} and {instance.name} have one engine id, and a peer would mix up "
                    "their memory"
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
    first: Instance | None = None
    for instance in c.instances("pd_kv_connector"):
        first = first or instance
        if instance.settings.connector != first.settings.connector:
            yield r.at(
                f"{instance.name} and {first.name} would speak different protocols",
                instance=instance.name,
                variable="pd_kv_connector",
                seen=instance.settings.connector,
                expected=first.settings.connector,
            )


@rule(
    "PD511",
    ERROR,
    "The layerwise connector runs without prefill context parallel",
    cure="use MooncakeConnectorV1, or set prefill_context to 1, or use a release from v0.21 on",
    source="vllm-ascend PRs 6627, 10019: its ports know no context rank before v0.21",
)
def layerwise_context(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_parallel", "pd_kv_connector"):
        connector = c.cluster.release.connectors.get(instance.settings.connector)
        if connector and not connector.prefill_context_parallel and instance.parallel.prefill_context > 1:
            yield r.at(
                f"the handshake ports of {connector.name} collide between context ranks at "
                f"{c.cluster.release.name}",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"prefill_context {instance.parallel.prefill_context}",
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
    "PD514",
    ERROR,
    "kv_connector_extra_config has the sizes that the connector reads",
    cure="remove prefill and decode from pd_kv_extra_config: they are computed",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197",
)
def sizes_present(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_kv_extra_config"):
        if not instance.settings.kv_extra_config:
            continue
        extra = kv_extra_config(c.cluster, instance, instance.head)
        for side in ("prefill", "decode"):
            sizes = extra.get(side)
            for key in ("tp_size", "dp_size"):
                value = sizes.get(key) if isinstance(sizes, Mapping) else None
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    yield r.at(
                        f"the connector asserts that {side}.{key} is there, without a word",
                        instance=instance.name,
                        variable="pd_kv_extra_config",
                        seen=f"{side}: {shown(sizes, 60)}",
                        expected=f"{side}.{key}: a whole number",
                    )
