# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about pipelines: how layers are split, and what the decoders' configuration says about it.

A decoder computes which stage holds a layer and fetches it from there. Nothing compares this with the
prefiller's real split: a difference causes wrong text, not an error at start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..findings import ERROR, Finding, Rule, shown
from ..launch.transfer import LAYER_PARTITION, kv_extra_config
from ..model import Instance
from .base import Context, rule
from .transfer import configured_sizes, transferring


def parts(partition: object) -> tuple[int, ...] | None:
    """The number of layers of each stage; None if the text is not a partition."""
    text = str(partition)
    given = re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6}){0,999}", text)
    return tuple(int(part) for part in text.split(",")) if given else None


def even(layers: int, stages: int) -> tuple[int, ...]:
    """vLLM's default split of layers: the remainder goes to the stages before the last one
    (V@0.13.0:vllm/distributed/utils.py:123-131).

    >>> even(61, 2), even(62, 4)
    ((31, 30), (15, 16, 16, 15))
    """
    split = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        split[-place] += 1
    return tuple(split)


@rule(
    "PD209",
    ERROR,
    "With MooncakeConnectorV1, pipeline and prefill context parallel are mutually exclusive",
    cure="set pipeline or prefill_context to 1",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1125",
)
def pipeline_or_context(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_parallel"):
        sizes = instance.parallel
        if connector.pipeline and sizes.pipeline > 1 and sizes.prefill_context > 1:
            yield r.at(
                "pp and pcp cannot open in same time",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"pipeline {sizes.pipeline}, prefill_context {sizes.prefill_context}",
                expected="one of them 1",
            )


@rule(
    "PD210",
    ERROR,
    "A decoder uses no pipeline parallelism",
    cure="set pipeline to 1 for the decoder",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197",
)
def decoder_pipeline(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, _ in transferring(c, "pd_parallel", role="decoder"):
        if instance.parallel.pipeline > 1:
            yield r.at(
                "decode pp size must be 1",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"pipeline {instance.parallel.pipeline}",
                expected="pipeline 1",
            )


@rule(
    "PD225",
    ERROR,
    f"{LAYER_PARTITION} has one entry per pipeline rank and covers all layers",
    cure="correct it in pd_engine_env of the instance with the pipeline, and set it on no other instance",
    source="V@0.13.0:vllm/distributed/utils.py:111-122",
)
def partition_fits(r: Rule, c: Context) -> Iterator[Finding]:
    """Engines without a pipeline read the variable too, and fail because it has more than one entry."""
    for instance, node in c.nodes("pd_parallel", "pd_engine_env", "pd_profile"):
        given = node.env.get(LAYER_PARTITION)
        if given is None:
            continue
        stages, layers = instance.parallel.pipeline, instance.settings.profile.layers
        split = parts(given)
        if split is None:
            message = f"Invalid partition string: {shown(given, 60)}"
        elif len(split) != stages:
            message = f"len(partitions)={len(split)} does not match pp_size={stages}."
        elif layers is not None and sum(split) != layers:
            message = f"sum(partitions)={sum(split)} does not match num_hidden_layers={layers}."
        elif given != instance.head.env.get(LAYER_PARTITION):
            message = "the nodes of one pipeline would split the layers differently"
        else:
            continue
        yield r.at(
            message,
            host=node.host if len(instance.nodes) > 1 else None,
            instance=instance.name,
            variable="pd_engine_env",
            seen=f"{LAYER_PARTITION}={shown(given, 60)}, pipeline {stages}",
            expected=f"{stages} numbers that add up to {layers or 'all layers'}, the same on all nodes",
        )


@rule(
    "PD516",
    ERROR,
    "The layerwise connector is used without a pipeline",
    cure="use MooncakeConnectorV1, or set pipeline to 1",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py:210-224, 1081; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:519, 1705"
    ),
)
def layerwise_pipeline(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_parallel", role="prefiller"):
        if not connector.pipeline and instance.parallel.pipeline > 1:
            yield r.at(
                f"each stage of the pipeline counts its layers from 0 in {connector.name}, and says that a "
                "prompt is through when its own layers are: decoders would go on with others' layers",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"pipeline {instance.parallel.pipeline}",
                expected="pipeline 1",
            )


@rule(
    "PD518",
    ERROR,
    "A prefiller with a pipeline uses no decode context parallel",
    cure="set pipeline or decode_context to 1 for the prefiller",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py (get_cp_group_meta); "
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:1565; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:2752"
    ),
)
def pipeline_or_decode_context(r: Rule, c: Context) -> Iterator[Finding]:
    """With context ranks the decoder computes the prefiller's ports without its stages. Prefill context is
    rejected at start (PD209), decode context is not."""
    for instance, connector in transferring(c, "pd_parallel", role="prefiller"):
        sizes = instance.parallel
        if connector.pipeline and sizes.pipeline > 1 and sizes.decode_context > 1:
            yield r.at(
                "decoders fetch the layers of all stages from the first stage's ranks: wrong text, but no "
                "error at start",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"pipeline {sizes.pipeline}, decode_context {sizes.decode_context}",
                expected="one of them 1",
            )


@rule(
    "PD519",
    ERROR,
    "The pipeline in kv_connector_extra_config matches the prefillers' pipeline",
    cure=(
        "remove pp_size and pp_layer_partition from pd_kv_extra_config: they are computed from pd_parallel "
        f"and from {LAYER_PARTITION} in the prefiller's pd_engine_env"
    ),
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1186, 1198, 1828; "
        "A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py:2076, 2086"
    ),
)
def stages_told(r: Rule, c: Context) -> Iterator[Finding]:
    first = next(iter(c.instances("pd_parallel", "pd_engine_env", role="prefiller")), None)
    for instance, connector in transferring(c, "pd_parallel", "pd_kv_extra_config", "pd_engine_env"):
        prefiller = instance if instance.role == "prefiller" else first
        if prefiller is None or not connector.pipeline or not instance.settings.kv_extra_config:
            continue
        configured = configured_sizes(kv_extra_config(c.cluster, instance, instance.head), "prefill")
        stages = prefiller.parallel.pipeline
        size, partition = configured.get("pp_size", 1), configured.get("pp_layer_partition")
        if size != stages or isinstance(size, bool):
            yield r.at(
                f"{prefiller.name} has {stages} pipeline ranks, but layers would be fetched from "
                f"{shown(size, 20)}",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"prefill.pp_size: {shown(size, 40)}",
                expected=f"prefill.pp_size: {stages}",
            )
        elif stages > 1 and not _same_split(prefiller, partition):
            real = prefiller.head.env.get(LAYER_PARTITION)
            yield r.at(
                f"{prefiller.name} splits its layers {f'as {shown(real, 60)}' if real else 'evenly'}, but is "
                f"configured with {shown(partition, 60) if partition is not None else 'an even split'}",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"prefill.pp_layer_partition: {shown(partition, 60)}",
                expected=f"prefill.pp_layer_partition: {shown(real, 60) if real else 'not set'}",
            )


def _same_split(prefiller: Instance, partition: object) -> bool:
    """Whether a configured partition is the prefiller's own; invalid ones are left to PD225 and PD521."""
    stages = prefiller.parallel.pipeline
    env = prefiller.head.env.get(LAYER_PARTITION)
    real = None if env is None else parts(env)
    configured = None if partition is None else parts(partition)
    if (env is not None and real is None) or (partition is not None and configured is None):
        return True
    layers = sum(real or configured or ())
    return (real or even(layers, stages)) == (configured or even(layers, stages))


@rule(
    "PD520",
    ERROR,
    "kv_connector_extra_config sets no pipeline for decoders",
    cure="remove pp_size from decode in pd_kv_extra_config",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1197",
)
def decode_pipeline_told(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_kv_extra_config"):
        if not connector.pipeline or not instance.settings.kv_extra_config:
            continue
        configured = configured_sizes(kv_extra_config(c.cluster, instance, instance.head), "decode")
        size = configured.get("pp_size", 1)
        if size != 1 or isinstance(size, bool):
            yield r.at(
                "decode pp size must be 1",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"decode.pp_size: {shown(size, 40)}",
                expected="decode.pp_size: 1",
            )


@rule(
    "PD521",
    ERROR,
    "A layer partition has one entry per pipeline rank and covers all layers",
    cure="correct prefill.pp_layer_partition in pd_kv_extra_config, or remove it for an even split",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py (get_prefill_pp_indices)",
)
def layer_partition(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, connector in transferring(c, "pd_parallel", "pd_kv_extra_config", "pd_profile"):
        if not connector.pipeline or not instance.settings.kv_extra_config:
            continue
        configured = configured_sizes(kv_extra_config(c.cluster, instance, instance.head), "prefill")
        partition, size = configured.get("pp_layer_partition"), configured.get("pp_size", 1)
        if partition is None:
            continue
        layers = instance.settings.profile.layers
        text = str(partition)
        split = parts(text)
        if split is None:
            message = f"Invalid partition string: {shown(text, 60)}"
        elif len(split) != size:
            message = f"len(partitions)={len(split)} does not match pp_size={shown(size, 20)}"
        elif layers is not None and sum(split) != layers:
            message = f"sum(partitions)={sum(split)} does not match num_hidden_layers={layers}"
        else:
            continue
        yield r.at(
            message,
            instance=instance.name,
            variable="pd_kv_extra_config",
            seen=f"prefill.pp_layer_partition: {shown(text, 60)}",
            expected=f"{shown(size, 20)} numbers that add up to {layers or 'all layers'}",
        )
