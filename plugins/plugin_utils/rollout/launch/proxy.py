# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The routers, and the entry point for clients."""

from __future__ import annotations

from collections.abc import Sequence

from ....module_utils._serving.router_list import expected_backends, list_labels
from ..model import Mount, Proxy, ValidCluster
from ..plan_dict import (
    EndpointDict,
    EngineDict,
    EntryDict,
    FrontDict,
    ProxyDict,
    RuntimeDict,
)
from ..routers import vllm_router
from ..secrecy import in_router
from ..topology import proxy_connector
from .arguments import Argument, words
from .container import directory, labels_of, own_mounts, secret_path_of
from .router import (
    backends,
    upstream_arguments,
    vllm_router_arguments,
)
from .script import proxy_script, router_script


def proxy(cluster: ValidCluster, which: Proxy) -> ProxyDict:
    """Return one router on one host, as in the plan.

    ``which`` has its host, its ports, its name (that of its container and its script) and its address;
    without an address it listens on the host's.
    """
    declaration, address = cluster.declaration, which.address or cluster.addresses[which.host]
    prefillers, decoders = backends(cluster, "prefiller"), backends(cluster, "decoder")
    runtime = None
    if declaration.router == "upstream":
        script = Argument((cluster.release.proxy_scripts[proxy_connector(cluster)],))
        arguments = [script, *upstream_arguments(cluster, which, prefillers, decoders)]
        text = proxy_script(cluster, which.host, arguments)
        program = ["python"]
        health = "healthcheck"
    else:
        runtime = _runtime(cluster)
        arguments = vllm_router_arguments(cluster, which, prefillers, decoders)
        text = router_script(cluster, which.host, runtime["path"], arguments)
        program = ["python", "-m", "vllm_router.launch_router"]
        health = "workers"
    script_path = f"{directory(cluster)}/{which.name}.sh"
    secret_path = secret_path_of(cluster)
    own = own_mounts(script_path, secret_path)
    if runtime is not None:
        own.append(Mount(runtime["path"], runtime["path"], True))
    mounts = [mount.to_dict() for mount in own]
    return {
        "container": f"{declaration.deployment}-{which.name}",
        "colour": which.colour,
        "router": declaration.router,
        "image": declaration.image,
        "host": address,
        "port": which.port,
        "metrics_port": which.metrics_port,
        "argv": [*program, *words(arguments)],
        "script": text,
        "secrets": any(True for _ in in_router(declaration)),
        "script_path": script_path,
        "command": ["bash", script_path],
        "mounts": mounts,
        "secret_path": secret_path,
        "runtime": runtime,
        "health_url": f"http://{address}:{which.port}/{health}",
        "expected": expected_backends(declaration.router, prefillers, decoders),
        "labels": {
            **labels_of(
                cluster, which.name, "proxy", {"image": declaration.image, "mounts": mounts, "script": text}
            ),
            **list_labels(prefillers, decoders),
        },
    }


def _runtime(cluster: ValidCluster) -> RuntimeDict:
    """Return what a router's container needs and its image lacks."""
    router = vllm_router()
    return {
        "path": f"{directory(cluster)}/{router.directory}",
        "version": router.version,
        "wheels": {machine: dict(wheels) for machine, wheels in router.wheels.items()},
    }


def entry(
    cluster: ValidCluster,
    engines: list[EngineDict],
    routers: Sequence[ProxyDict],
    front: FrontDict | None,
) -> EntryDict | None:
    """Return the entry point for clients on one host: its front, its router, or the head of a colocated
    engine."""
    if front is not None:
        return {
            "container": routers[0]["container"],
            "scheme": "https" if front["tls"] else "http",
            "host": front["host"],
            "port": front["port"],
            "secret_path": None,
        }
    if routers:
        return _entry(routers[0]["container"], routers[0], routers[0]["secret_path"])
    for engine in engines:
        api = engine["api"]
        if cluster.colocated and engine["node_rank"] == 0 and api is not None:
            return _entry(engine["container"], api, engine["secret_path"])
    return None


def _entry(container: str, at: EndpointDict | ProxyDict, secret_path: str | None) -> EntryDict:
    return {
        "container": container,
        "scheme": "http",
        "host": at["host"],
        "port": at["port"],
        "secret_path": secret_path,
    }
