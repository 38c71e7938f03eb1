# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of each node's KV connector: --kv-transfer-config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import KV_ROLES, ROLES, Cluster, Instance, Node

# Fields of --kv-transfer-config that the planner writes itself, with the variable that determines each.
KV_FIELDS: Mapping[str, str] = {
    "kv_connector": "pd_kv_connector",
    "kv_role": "the group of the hosts",
    "kv_port": "pd_kv_port",
    "engine_id": "pd_engine_id",
    "kv_connector_extra_config": "pd_kv_extra_config",
}

# How vLLM splits the layers over a pipeline, if not evenly (V@0.13.0:vllm/distributed/utils.py:111). A
# decoder needs the same split in prefill.pp_layer_partition.
LAYER_PARTITION = "VLLM_PP_LAYER_PARTITION"


def kv_transfer_config(cluster: Cluster, instance: Instance, node: Node) -> dict[str, Any]:
    """Return --kv-transfer-config of one node, in the guide's order."""
    role = node.settings.profile.roles[instance.role]
    config: dict[str, Any] = {
        "kv_connector": node.settings.connector,
        "kv_role": KV_ROLES[instance.role],
        "kv_port": str(instance.kv_port),
        "engine_id": node.engine_id,
    }
    if role.kv_module_path is not None:
        config["kv_connector_module_path"] = role.kv_module_path
    config.update(
        (name, value) for name, value in node.settings.kv_transfer_config.items() if name not in KV_FIELDS
    )
    config["kv_connector_extra_config"] = kv_extra_config(cluster, instance, node)
    return config


def kv_extra_config(cluster: Cluster, instance: Instance, node: Node) -> dict[str, Any]:
    """Return the sizes of both sides, the own side from the instance, with pd_kv_extra_config merged over."""
    extra = dict(node.settings.profile.roles[instance.role].kv_extra_config)
    extra.update(computed_sizes(cluster, instance))
    return _overlaid(extra, node.settings.kv_extra_config)


def computed_sizes(cluster: Cluster, instance: Instance) -> dict[str, dict[str, Any]]:
    """Return the planned sizes of both sides: the instance's own, and those of the other role's first
    instance by name, so that the order of the inventory does not matter."""
    sides = {**cluster.first_by_name, instance.role: instance}
    prefiller, decoder = (sides.get(role, instance) for role in ROLES)
    prefill: dict[str, Any] = {"dp_size": prefiller.parallel.data, "tp_size": prefiller.parallel.tensor}
    if prefiller.role == "prefiller" and prefiller.parallel.pipeline > 1:
        # Without pp_size a connector assumes 1, and would fetch all layers from the first stage.
        prefill["pp_size"] = prefiller.parallel.pipeline
        partition = prefiller.head.env.get(LAYER_PARTITION)
        if partition is not None:
            prefill["pp_layer_partition"] = partition
    return {
        "prefill": prefill,
        "decode": {"dp_size": decoder.parallel.data, "tp_size": decoder.parallel.tensor},
    }


def _overlaid(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = (
            _overlaid(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
        )
    return result
