# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The proxy, and the entry point for clients."""

from __future__ import annotations

from collections.abc import Mapping

from ..model import Proxy, ValidCluster
from ..plan_dict import EndpointDict, EngineDict, EntryDict, ProxyDict
from .arguments import Argument, words
from .container import directory, labels_of, own_mounts, secret_path_of
from .script import proxy_script


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


def _arguments(cluster: ValidCluster, proxy: Proxy) -> list[Argument]:
    prefillers, decoders = backends(cluster, "prefiller"), backends(cluster, "decoder")
    return [
        Argument(("--port", str(proxy.port))),
        Argument(("--host", cluster.addresses[proxy.host])),
        Argument(("--prefiller-hosts", *(str(b["host"]) for b in prefillers))),
        Argument(("--prefiller-ports", *(str(b["port"]) for b in prefillers))),
        Argument(("--decoder-hosts", *(str(b["host"]) for b in decoders))),
        Argument(("--decoder-ports", *(str(b["port"]) for b in decoders))),
    ]


def _proxy_script(cluster: ValidCluster) -> str:
    """Return the proxy's script for the connector; for MultiConnector, the first one found inside it."""
    scripts = cluster.release.proxy_scripts
    for settings in (instance.settings for instance in cluster.instances[:1]):
        inner = settings.kv_extra_config.get("connectors")
        entries = [entry for entry in inner if isinstance(entry, Mapping)] if isinstance(inner, list) else []
        for name in (settings.connector, *(entry.get("kv_connector") for entry in entries)):
            if isinstance(name, str) and name in scripts:
                return scripts[name]
    return next(iter(scripts.values()))


def proxy(cluster: ValidCluster, which: Proxy) -> ProxyDict:
    """Return the proxy on one host, as in the plan."""
    declaration, address = cluster.declaration, cluster.addresses[which.host]
    arguments = [Argument((_proxy_script(cluster),)), *_arguments(cluster, which)]
    text = proxy_script(cluster, which.host, arguments)
    script_path = f"{directory(cluster)}/proxy.sh"
    secret_path = secret_path_of(cluster)
    mounts = [mount.to_dict() for mount in own_mounts(script_path, secret_path)]
    return {
        "container": f"{declaration.deployment}-proxy",
        "image": declaration.image,
        "host": address,
        "port": which.port,
        "argv": ["python", *words(arguments)],
        "script": text,
        "script_path": script_path,
        "command": ["bash", script_path],
        "mounts": mounts,
        "secret_path": secret_path,
        "health_url": f"http://{address}:{which.port}/healthcheck",
        "expected": {
            "prefill_instances": len(backends(cluster, "prefiller")),
            "decode_instances": len(backends(cluster, "decoder")),
        },
        "labels": labels_of(
            cluster, "proxy", "proxy", {"image": declaration.image, "mounts": mounts, "script": text}
        ),
    }


def entry(cluster: ValidCluster, engines: list[EngineDict], proxy: ProxyDict | None) -> EntryDict | None:
    """Return the entry point for clients on one host: its proxy, or the head of a colocated engine."""
    if proxy is not None:
        return {
            "container": proxy["container"],
            "host": proxy["host"],
            "port": proxy["port"],
            "secret_path": proxy["secret_path"],
        }
    for engine in engines:
        api = engine["api"]
        if cluster.colocated and engine["node_rank"] == 0 and api is not None:
            return {
                "container": engine["container"],
                "host": api["host"],
                "port": api["port"],
                "secret_path": engine["secret_path"],
            }
    return None
