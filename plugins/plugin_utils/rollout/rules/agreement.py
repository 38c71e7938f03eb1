# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about flags and variables that determine what a KV cache holds and how it is transferred.

Caches are transferred from prefiller to decoder as bytes, and nothing compares what the bytes mean. A known
difference is an error; a possible difference, or one that only costs time, is a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..model import Instance, Node
from .base import Context, additional_config, at_node, is_on, rule
from .transfer import nested, transferring

# Two names of one type (V@0.13.0:vllm/config/model.py, _STR_DTYPE_TO_TORCH_DTYPE; vllm/utils/torch_utils.py).
_TYPES = {"half": "float16", "float": "float32", "fp8": "fp8_e4m3", "auto": None}
_ONE_BYTE = ("fp8", "int8", "uint8")
# Methods of speculation that have no cache of their own.
_WITHOUT_CACHE = ("ngram", "suffix", "medusa", "mlp_speculator")


@dataclass(frozen=True)
class _Fact:
    """A setting that both sides have: how it is read from a node, and which variable sets it. The value None
    means the model's default, which is not known here."""

    name: str
    variable: str
    of: Callable[[Context, Node], Any]


def _type(value: Any) -> str | None:
    text = str(value).removeprefix("torch.")
    return None if value is None else _TYPES.get(text, text)


def _cache_type(c: Context, node: Node) -> str | None:
    """The data type of the cache, else that of the model (A@v0.13.0:vllm_ascend/worker/worker.py:135)."""
    return _type(node.flag("kv-cache-dtype")) or _type(node.flag("dtype"))


def _without_mla(c: Context, node: Node) -> str:
    return "on" if is_on(node.env.get("VLLM_MLA_DISABLE")) else "off"


def _config_key(key: str) -> Callable[[Context, Node], Any]:
    """A switch of --additional-config, by Python's truth value; off if the release does not read it."""

    def of(c: Context, node: Node) -> str:
        on = key in c.cluster.release.additional_config and bool(additional_config(node).get(key))
        return "on" if on else "off"

    return of


def _flag(name: str) -> Callable[[Context, Node], Any]:
    return lambda c, node: _type(node.flag(name))


def _rotation(node: Node) -> str | None:
    """The settings of the rotary embedding, as text; None for the model's defaults."""
    overrides = node.flag("hf-overrides")
    given = dict(overrides) if isinstance(overrides, Mapping) else {}
    given.update({name: node.flag(name) for name in ("rope-scaling", "rope-theta")})
    found = {name: value for name, value in given.items() if "rope" in name and value is not None}
    return json.dumps(found, sort_keys=True) if found else None


def _overrides(node: Node) -> str | None:
    """The other settings in --hf-overrides, as text; None if there are none."""
    overrides = node.flag("hf-overrides")
    if not isinstance(overrides, Mapping):
        return None if overrides is None else str(overrides)
    rest = {name: value for name, value in overrides.items() if "rope" not in name}
    return json.dumps(rest, sort_keys=True) if rest else None


def _variable(name: str, default: str) -> Callable[[Context, Node], Any]:
    return lambda c, node: node.env.get(name, default)


# Keys hold their positions already.
ROTATION = _Fact("the rotary embedding", "pd_engine_args", lambda c, node: _rotation(node))
CACHE_TYPE = _Fact("kv-cache-dtype, or dtype", "pd_engine_args", _cache_type)
# The layout of a cache: with a difference, its bytes are read as other numbers.
_LAYOUT = (
    CACHE_TYPE,
    # V@0.13.0:vllm/config/model.py:1578
    _Fact("VLLM_MLA_DISABLE", "pd_engine_env", _without_mla),
    # Of models with sparse attention: A@v0.18.0:vllm_ascend/ascend_config.py:157
    _Fact("enable_sparse_c8", "pd_engine_args", _config_key("enable_sparse_c8")),
    # A@v0.23.0:vllm_ascend/ascend_config.py:280, core/kv_cache_interface.py:60
    _Fact("enable_sparse_sfa_c8", "pd_engine_args", _config_key("enable_sparse_sfa_c8")),
    _Fact("enable_sparse_li_c8", "pd_engine_args", _config_key("enable_sparse_li_c8")),
    # Of models with state-space layers.
    _Fact("mamba-cache-dtype", "pd_engine_args", _flag("mamba-cache-dtype")),
    _Fact("mamba-ssm-cache-dtype", "pd_engine_args", _flag("mamba-ssm-cache-dtype")),
    ROTATION,
)
# Each side tokenizes a prompt itself, because the proxy sends the text to both.
_PROMPT = tuple(
    _Fact(name, "pd_engine_args", _flag(name))
    for name in (
        "tokenizer",
        "tokenizer-mode",
        "chat-template",
        "chat-template-content-format",
        "default-chat-template-kwargs",
        "mm-processor-kwargs",
    )
)
# How caches are split and transferred: a mismatch fails or is slow, and no source says which.
_WAYS = (
    _Fact("mamba-cache-mode", "pd_engine_args", _flag("mamba-cache-mode")),
    _Fact("mamba-block-size", "pd_engine_args", _flag("mamba-block-size")),
    _Fact("disable-hybrid-kv-cache-manager", "pd_engine_args", _flag("disable-hybrid-kv-cache-manager")),
    # Mooncake's transport for Ascend, which both ends of a connection choose for themselves
    # (A@v0.13.0:docs/source/user_guide/feature_guide/kv_pool.md).
    _Fact("HCCL_INTRA_ROCE_ENABLE", "pd_engine_env", _variable("HCCL_INTRA_ROCE_ENABLE", "0")),
    _Fact("ASCEND_ENABLE_USE_FABRIC_MEM", "pd_engine_env", _variable("ASCEND_ENABLE_USE_FABRIC_MEM", "0")),
    _Fact("ASCEND_BUFFER_POOL", "pd_engine_env", _variable("ASCEND_BUFFER_POOL", "not set")),
)
_OVERRIDES = _Fact("hf-overrides", "pd_engine_args", lambda c, node: _overrides(node))
_VARIABLES = ("pd_engine_args", "pd_engine_env", "pd_profile")


def _differing(c: Context, facts: tuple[_Fact, ...]) -> Iterator[tuple[_Fact, Instance, Any, Instance, Any]]:
    """Yield each setting that differs between a decoder and a prefiller, with one prefiller of each kind."""
    kinds: dict[tuple[Any, ...], Instance] = {}
    for instance, _ in transferring(c, *_VARIABLES, role="prefiller"):
        kinds.setdefault(tuple(fact.of(c, instance.head) for fact in facts), instance)
    for decoder, _ in transferring(c, *_VARIABLES, role="decoder"):
        for values, prefiller in list(kinds.items())[:8]:
            for fact, p in zip(facts, values, strict=True):
                d = fact.of(c, decoder.head)
                if p != d:
                    yield fact, prefiller, p, decoder, d


def _certain(fact: _Fact, p: Any, d: Any) -> bool:
    """Whether two values are known to differ; the model's own data type never has one byte."""
    if p is not None and d is not None:
        return True
    return fact is CACHE_TYPE and str(p or d).startswith(_ONE_BYTE)


def _at(
    r: Rule, fact: _Fact, message: str, prefiller: Instance, p: Any, decoder: Instance, d: Any
) -> Finding:
    unset = "not set" if fact is not CACHE_TYPE else "the model's own"
    configured = [shown(unset if value is None else value, 40) for value in (p, d)]
    return r.at(
        message,
        instance=decoder.name,
        variable=fact.variable,
        seen=f"{fact.name}: {configured[0]} in {prefiller.name}, {configured[1]} in {decoder.name}",
        expected=f"the same {fact.name} on both sides",
    )


@rule(
    "PD531",
    ERROR,
    "Prefillers and decoders keep KV caches of the same format",
    cure="set it to the same value on both sides",
    source=(
        "A@v0.13.0:vllm_ascend/worker/worker.py:135, V@0.13.0:vllm/config/model.py:1578, "
        "A@v0.23.0:vllm_ascend/core/kv_cache_interface.py:60"
    ),
)
def one_layout(r: Rule, c: Context) -> Iterator[Finding]:
    for fact, prefiller, p, decoder, d in _differing(c, _LAYOUT):
        # With a profile the attention is known: none is sparse, and without MLA there is none to disable.
        attention = decoder.settings.profile.attention
        idle = (attention is not None and "sparse" in fact.name) or (
            attention == "gqa" and fact.name == "VLLM_MLA_DISABLE"
        )
        if _certain(fact, p, d) and not idle:
            yield _at(
                r,
                fact,
                "the bytes of one side mean other numbers on the other side",
                prefiller,
                p,
                decoder,
                d,
            )


@rule(
    "PD532",
    WARNING,
    "Prefillers and decoders handle KV caches in the same way",
    cure="set it to the same value on both sides",
    source="plugins/plugin_utils/rollout/rules/agreement.py, with a source for each",
)
def one_way(r: Rule, c: Context) -> Iterator[Finding]:
    for fact, prefiller, p, decoder, d in _differing(c, _LAYOUT):
        if not _certain(fact, p, d):
            message = "one side uses the model's default, which may give its cache another format"
            yield _at(r, fact, message, prefiller, p, decoder, d)
    others = (
        (_WAYS, "both sides transfer the same caches, but may use incompatible ways"),
        (
            _PROMPT,
            "each side tokenizes a prompt itself, and the decoder applies its own tokens to the cache",
        ),
        ((_OVERRIDES,), "the two models may differ in what their caches hold"),
    )
    for facts, message in others:
        for fact, prefiller, p, decoder, d in _differing(c, facts):
            yield _at(r, fact, message, prefiller, p, decoder, d)


def _speculation(instance: Instance) -> Mapping[str, Any] | None:
    """The speculative configuration if its method has a cache of its own, else None."""
    config = instance.head.flag("speculative-config")
    if not isinstance(config, Mapping) or not config:
        return None
    return None if config.get("method") in _WITHOUT_CACHE else config


@rule(
    "PD533",
    ERROR,
    "With the layerwise connector, a decoder has the speculative layers of its prefillers",
    cure="set speculative-config on both sides, or on the decoder alone",
    source=(
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:285, 502, "
        "1215; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:519"
    ),
)
def speculative_layers(r: Rule, c: Context) -> Iterator[Finding]:
    """The last layer signals the end of a prompt. The decoder looks it up by name, does not find it, and
    waits forever."""
    prefillers = [i for i, _ in transferring(c, "pd_engine_args", role="prefiller") if _speculation(i)]
    for decoder, connector in transferring(c, "pd_engine_args", role="decoder"):
        if prefillers and connector.tensor_order == "at_request" and not _speculation(decoder):
            yield r.at(
                f"{prefillers[0].name} ends each prompt with a layer that {decoder.name} does not have, so "
                "the signal that the prompt is complete is lost",
                instance=decoder.name,
                variable="pd_engine_args",
                seen=f"speculative-config in {prefillers[0].name} only",
                expected="speculative-config on both sides",
            )


@rule(
    "PD534",
    ERROR,
    "With the layerwise connector of v0.13.0, a decoder's cache is not in NZ layout",
    cure="remove enable_kv_nz from additional-config, or use MooncakeConnectorV1",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py (reads no layout), "
        "mooncake_connector.py:572, vllm_ascend/attention/mla_v1.py:1097"
    ),
)
def layout_pushed(r: Rule, c: Context) -> Iterator[Finding]:
    for decoder, connector in transferring(c, "pd_engine_args", role="decoder"):
        pushed = connector.listener == "decoder" and connector.tensor_order == "at_start"
        if pushed and additional_config(decoder.head).get("enable_kv_nz"):
            yield r.at(
                f"{connector.name} writes blocks in the prefiller's layout, and nothing converts them",
                instance=decoder.name,
                variable="pd_engine_args",
                seen="enable_kv_nz: true",
                expected="enable_kv_nz: false",
            )


@rule(
    "PD535",
    WARNING,
    "With the layerwise connector, a decoder's cache is in NZ layout only with quantized attention",
    cure="remove enable_kv_nz from additional-config, or use MooncakeConnectorV1",
    source=(
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:1646, "
        "vllm_ascend/attention/mla_v1.py:1254"
    ),
)
def layout_quantized(r: Rule, c: Context) -> Iterator[Finding]:
    """Whether attention is quantized is known from the weights only."""
    for decoder, connector in transferring(c, "pd_engine_args", role="decoder"):
        pushed = connector.listener == "decoder" and connector.tensor_order == "at_request"
        if pushed and additional_config(decoder.head).get("enable_kv_nz"):
            yield r.at(
                f"{connector.name} converts the layout of quantized caches only: others are read as noise",
                instance=decoder.name,
                variable="pd_engine_args",
                seen="enable_kv_nz: true",
                expected="enable_kv_nz: false",
            )


POOLS = ("AscendStoreConnector", "MooncakeConnectorStoreV1")


@rule(
    "PD536",
    WARNING,
    "Engines that share a KV pool use the same hash seed",
    cure='set PYTHONHASHSEED: "0" in pd_engine_env of all engines',
    source="A@v0.13.0:docs/source/user_guide/feature_guide/kv_pool.md:19",
)
def one_hash_seed(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    first: Node | None = None
    for instance, node in c.nodes("pd_kv_connector", "pd_kv_extra_config", "pd_engine_env"):
        inner = [entry.get("kv_connector") for entry in nested(node.settings.kv_extra_config)]
        if not {node.settings.connector, *map(str, inner)}.intersection(POOLS):
            continue
        first = first or node
        seed, other = node.env.get("PYTHONHASHSEED"), first.env.get("PYTHONHASHSEED")
        if seed in (None, "", "random") or seed != other:
            yield r.at(
                "Python salts its hashes differently in each process, so no engine finds what another "
                "has put into the pool",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"PYTHONHASHSEED={'(not set)' if seed is None else seed}",
                expected=other if other not in (None, "", "random") else "0",
            )
