# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the sizes configured for both sides of a transfer, and which sizes are compatible."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..connectors import Connector
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.transfer import kv_extra_config
from ..model import Instance
from .base import Context, context_parallel, rule
from .transfer import OWN_SIDE, configured_sizes, pairs, transferring


@rule(
    "PD501",
    ERROR,
    "kv_connector_extra_config has the engine's own sizes",
    cure="remove tp_size and dp_size from pd_kv_extra_config: they are computed from pd_parallel",
    source="A@v0.13.0:vllm_ascend/utils.py:1111-1139",
)
def own_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    words = {"tp_size": ("tensor", "tensor"), "dp_size": ("data", "data")}
    for instance, _ in transferring(c, "pd_parallel", "pd_kv_extra_config"):
        if not instance.settings.kv_extra_config:
            continue
        side = OWN_SIDE[instance.role]
        own = configured_sizes(kv_extra_config(c.cluster, instance, instance.head), side)
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
    "All engines have the same sizes in kv_connector_extra_config, if the connector relies on them",
    cure=("use the same sizes for all prefillers and for all decoders, and the same pd_kv_extra_config"),
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197; the keys: shared in "
        "plugins/plugin_utils/rollout/data/connectors"
    ),
)
def both_sides(r: Rule, c: Context) -> Iterator[Finding]:
    """Engines do not compare the sizes at start: a difference shows as wrong text or failed transfers."""
    first: Instance | None = None
    configured: Mapping[str, object] | None = None
    for instance, connector in transferring(c, "pd_parallel", "pd_kv_extra_config", "pd_engine_env"):
        if connector.tensor_order == "at_request" and instance.settings.profile.attention == "mla":
            continue  # its own sizes go with each request, and with MLA nothing else is read
        sizes = _trusted(connector, kv_extra_config(c.cluster, instance, instance.head))
        if first is None or configured is None:
            first, configured = instance, sizes
        elif sizes != configured:
            names = [name for name in sizes if sizes[name] != configured.get(name)]
            yield r.at(
                f"{instance.name} is configured with other sizes than {first.name}",
                instance=instance.name,
                variable="pd_parallel",
                seen=", ".join(f"{name} {shown(sizes[name], 40)}" for name in names),
                expected=", ".join(f"{name} {shown(configured.get(name), 40)}" for name in names),
            )


def _trusted(connector: Connector, extra: Mapping[str, Any]) -> dict[str, object]:
    """The configured sizes that must be the same in all engines, by their full names."""
    defaults = {"pp_size": 1}
    return {
        f"{side}.{key}": configured_sizes(extra, side).get(key, defaults.get(key))
        for side, keys in connector.shared.items()
        for key in keys
    }


@rule(
    "PD503",
    ERROR,
    "A decoder has at most as many tensor ranks as a prefiller, if the connector requires it",
    cure="lower the decoder's tensor, or raise the prefiller's",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1105, mooncake_layerwise_connector.py:833 "
        "(the latter until v0.13.0: PD517)"
    ),
)
def tensor_order(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in pairs(c, "pd_parallel"):
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
        prefill_size, decode_size = (
            configured_sizes(extra, side).get("tp_size") for side in ("prefill", "decode")
        )
        if isinstance(prefill_size, int) and isinstance(decode_size, int) and prefill_size < decode_size:
            yield r.at(
                f"prefill_tp_size: {prefill_size} must be greater than or equal to the decode_tp_size: "
                f"{decode_size}",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"prefill.tp_size: {prefill_size}, decode.tp_size: {decode_size}",
                expected="the sizes of pd_parallel",
                cure="remove tp_size from pd_kv_extra_config: it is computed from pd_parallel",
            )


@rule(
    "PD504",
    ERROR,
    "Without MLA, the prefiller's tensor size is a multiple of the decoder's",
    cure="choose a tensor size for the decoder that divides the prefiller's",
    source="A@v0.13.0:vllm_ascend/ascend_config.py:104",
)
def tensor_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in pairs(c, "pd_parallel", "pd_profile"):
        p, d = prefiller.parallel.tensor, decoder.parallel.tensor
        reported = connector.tensor_order == "at_start" and p < d  # by PD503
        if decoder.settings.profile.attention == "gqa" and p % d and not reported:
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
    """Upstream, this is an assertion without a message at the first request, minutes after a normal start."""
    for prefiller, decoder, _ in pairs(c, "pd_parallel"):
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
    cure="choose tensor sizes so that the decoder's heads per rank are a multiple of the prefiller's",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1362-1367",
)
def heads_multiple(r: Rule, c: Context) -> Iterator[Finding]:
    for prefiller, decoder, connector in pairs(c, "pd_parallel", "pd_profile"):
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
    "PD511",
    ERROR,
    "The layerwise connector is used without prefill context parallel, or with one context rank per node",
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
    "With this release, a DeepSeek-V3.1 decoder has more than one tensor rank",
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
    """Upstream, this is an assertion without a message at the first request."""
    for prefiller, decoder, connector in pairs(c, "pd_parallel", "pd_profile"):
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
    """If the kind of attention is not known, only what fails with every kind is an error: without MLA, one
    more key/value head makes one group of several ranks."""
    return prefiller.parallel.tensor >= decoder.parallel.tensor


def _groups(instance: Instance, heads: int) -> int:
    """Number of groups of tensor ranks that hold all key/value heads and all parts of the context."""
    ranks = instance.parallel.tensor // heads
    return 1 if ranks == 0 else ranks // instance.parallel.decode_context


@rule(
    "PD527",
    ERROR,
    "With a connector that ignores context ranks, decode_context is the same on both sides",
    cure="set decode_context to the same number on both sides, or use MooncakeConnectorV1",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py (no context rank is read)",
)
def same_decode_context(r: Rule, c: Context) -> Iterator[Finding]:
    """Blocks are transferred one by one, and with decode context parallel a rank holds only some of them."""
    for prefiller, decoder, connector in pairs(c, "pd_parallel"):
        p, d = prefiller.parallel.decode_context, decoder.parallel.decode_context
        if connector.listener == "decoder" and connector.tensor_order == "at_start" and p != d:
            yield r.at(
                f"ranks of {prefiller.name} and {decoder.name} hold different blocks of a prompt, but "
                "blocks are transferred one by one",
                instance=decoder.name,
                variable="pd_parallel",
                seen=f"decode_context {p} in {prefiller.name}, {d} in {decoder.name}",
                expected="the same decode_context",
            )


@rule(
    "PD514",
    ERROR,
    "kv_connector_extra_config has all sizes that engines read from it, as numbers",
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
                f"{missing.partition(':')[0]} is read at start, and the engine would fail without giving a "
                "reason",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"{side}: {shown(sizes, 60)}",
                expected=missing,
            )
