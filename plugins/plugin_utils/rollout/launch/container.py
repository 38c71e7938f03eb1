# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One engine on one host, with its container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....module_utils._serving.router_list import digest, places
from ..handshakes import connector_of, handshake_ports, listens
from ..model import KV_ROLES, Instance, Mount, Node, Rank, ValidCluster
from ..plan_dict import ContainerDict, EngineDict, RankDict
from ..secrecy import in_settings
from .arguments import serve_arguments, words
from .script import SECRET_TARGET, engine_script
from .transfer import kv_extra_config


def directory(cluster: ValidCluster) -> str:
    """Return the deployment's directory on the servers."""
    return f"{cluster.declaration.host_dir}/{cluster.declaration.deployment}"


def secret_path_of(cluster: ValidCluster) -> str | None:
    return f"{directory(cluster)}/api_key" if cluster.declaration.api_key else None


def own_mounts(script_path: str, secret_path: str | None) -> list[Mount]:
    mounts = [Mount(script_path, script_path, True)]
    if secret_path is not None:
        mounts.append(Mount(secret_path, SECRET_TARGET, True))
    return mounts


def labels_of(cluster: ValidCluster, instance: str, role: str, content: Mapping[str, Any]) -> dict[str, str]:
    return {
        "pd_rollout.deployment": cluster.declaration.deployment,
        "pd_rollout.instance": instance,
        "pd_rollout.role": role,
        "pd_rollout.hash": digest(content),
    }


def version(cluster: ValidCluster, instance: Instance, node: Node) -> str:
    """Return the identity of what engines must have in common to serve a request together.

    An engine of one version is never paired with one of another (docs/operation.md). Whatever the script
    says besides may differ while one instance after the other is changed.
    """
    settings, declaration = node.settings, cluster.declaration
    return digest(
        {
            "release": cluster.release.name,
            "image": [declaration.image, declaration.image_digest],
            "model": [settings.model_path, settings.served_model_name],
            "profile": settings.profile.name,
            "api_key": declaration.api_key,
            "transfer": None
            if cluster.colocated
            else [settings.connector, kv_extra_config(cluster, instance, node)],
        }
    )[:16]


def engine(cluster: ValidCluster, instance: Instance, node: Node) -> EngineDict:
    """Return one engine on one host, as in the plan."""
    settings, declaration = node.settings, cluster.declaration
    arguments = serve_arguments(cluster, instance, node, node.ranks[0] if node.ranks else None)
    text = engine_script(cluster, instance, node, arguments)
    script_path = f"{directory(cluster)}/{instance.name}.sh"
    secret_path = secret_path_of(cluster)
    mounts = [Mount(path, path, True) for path in cluster.release.mounts]
    mounts.append(Mount(settings.model_path, settings.model_path, True))
    mounts.extend(settings.extra_mounts)
    mounts.extend(own_mounts(script_path, secret_path))
    devices = [f"/dev/davinci{chip}" for chip in node.chips] + list(cluster.release.manager_devices)
    container: ContainerDict = {
        "image": declaration.image,
        "devices": devices,
        "mounts": [mount.to_dict() for mount in mounts],
        "shm_size": settings.shm_size,
    }
    ports = handshake_ports(
        instance.kv_port, instance.parallel, node.rank, len(instance.nodes), connector_of(cluster, instance)
    )
    head, address = instance.head, cluster.addresses[node.host]
    return {
        "instance": instance.name,
        "role": instance.role,
        "kv_role": None if cluster.colocated else KV_ROLES[instance.role],
        "container": f"{declaration.deployment}-{instance.name}",
        "node_rank": node.rank,
        "nnodes": len(instance.nodes),
        "headless": not node.api_ports,
        "world_size": instance.parallel.chips,
        "local_world_size": instance.local_world_size,
        "data_parallel_rank": node.data_start,
        "data_parallel_size_local": node.data_local,
        "chips": list(node.chips),
        **container,
        "env": dict(node.env),
        "argv": [] if node.ranks else ["vllm", "serve", *words(arguments)],
        "ranks": [_rank(cluster, instance, node, rank) for rank in node.ranks],
        "script": text,
        "secrets": any(True for _ in in_settings(settings)),
        "script_path": script_path,
        "command": ["bash", script_path],
        "secret_path": secret_path,
        "api": {"host": address, "port": node.api_ports[0]} if node.api_ports else None,
        "master": {"host": cluster.addresses[head.host], "port": instance.settings.master_port}
        if instance.spans_nodes
        else None,
        "engine_id": node.engine_id,
        "kv_port": instance.kv_port,
        "handshake_ports": list(ports) if listens(cluster, instance) else [],
        "model_path": settings.model_path,
        "served_model_name": settings.served_model_name,
        "ready": {"nodes": [{"host": other.host, "rank": other.rank} for other in instance.nodes]},
        "guarded": declaration.guard_port is not None,
        "labels": {
            **labels_of(cluster, instance.name, instance.role, {**container, "script": text}),
            "pd_rollout.release": cluster.release.name,
            "pd_rollout.model": settings.served_model_name,
            "pd_rollout.version": version(cluster, instance, node),
            "pd_rollout.chips": ",".join(map(str, node.chips)),
            "pd_rollout.apis": places([{"host": address, "port": port} for port in node.api_ports]),
        },
    }


def _rank(cluster: ValidCluster, instance: Instance, node: Node, rank: Rank) -> RankDict:
    """Return one rank of an engine with external data parallel; the keys are those of an engine."""
    size = instance.parallel.world_size
    connector = connector_of(cluster, instance)
    ports = (
        ()
        if connector is None
        else connector.ports(instance.kv_port, instance.parallel, rank.number * size, size)
    )
    return {
        "rank": rank.number,
        "chips": list(rank.chips),
        "env": {
            **node.env,
            "ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, rank.places)),
        },
        "argv": ["vllm", "serve", *words(serve_arguments(cluster, instance, node, rank))],
        "api": {"host": cluster.addresses[node.host], "port": rank.api_port},
        "engine_id": node.engine_id,
        "kv_port": instance.kv_port,
        "handshake_ports": list(ports) if listens(cluster, instance) else [],
    }
