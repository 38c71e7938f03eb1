# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard of one host: its unit, and what it must know of the deployment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ....module_utils._serving.router_list import places
from .. import data
from ..model import Instance, Node, ValidCluster
from ..plan_dict import (
    EngineDict,
    FrontDict,
    GuardConfigDict,
    GuardDict,
    GuardEngineDict,
    GuardInstanceDict,
    ProxyDict,
)
from ..topology import protocol
from .container import directory, secret_path_of
from .front import filled
from .router import backends


def guard(
    cluster: ValidCluster,
    host: str,
    engines: Sequence[EngineDict],
    routers: Sequence[ProxyDict],
    front: FrontDict | None,
) -> GuardDict | None:
    """Return the guard of a host, as in the plan; None if it has none.

    ``engines``, ``routers``, ``front``: those of the host in the plan.
    """
    declaration = cluster.declaration
    if declaration.guard_port is None or not (engines or routers):
        return None
    unit = f"{declaration.deployment}-guard"
    folder = f"{directory(cluster)}/guard"
    values = {
        "DEPLOYMENT": declaration.deployment,
        "HOST": host,
        "UNIT": unit,
        # The server knows its Python.
        "PYTHON": "@PYTHON@",
        "PROGRAM": argument(f"{folder}/pd-guard.pyz"),
        "CONFIG": argument(f"{folder}/guard.json"),
        "DIRECTORY": unit_word(directory(cluster)),
        # It would hide a directory of the deployment that is there.
        "PRIVATE_TMP": "" if directory(cluster).startswith(("/tmp/", "/var/tmp/")) else "PrivateTmp=yes",
    }
    return {
        "unit": unit,
        "directory": folder,
        "run": f"/run/{unit}",
        "host": cluster.addresses[host],
        "port": declaration.guard_port,
        "service": filled(data.text("guard", "guard.service"), values),
        "config": _config(cluster, host, declaration.guard_port, engines, routers, front),
    }


def argument(word: str) -> str:
    """Return a word as a unit's command has it, where ``$`` begins a variable."""
    return unit_word(word.replace("$", "$$"))


def unit_word(word: str) -> str:
    """Return a word as units of systemd have it: with spaces and quotes, and without specifiers.

    >>> unit_word("/srv/50% off")
    '"/srv/50%% off"'
    """
    text = word.replace("%", "%%")
    if re.fullmatch(r"[\w./@:+,=%$-]+", text, re.ASCII):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _config(
    cluster: ValidCluster,
    host: str,
    port: int,
    engines: Sequence[EngineDict],
    routers: Sequence[ProxyDict],
    front: FrontDict | None,
) -> GuardConfigDict:
    address, kind = cluster.addresses[host], protocol(cluster)
    pairs = cluster.by_host.get(host, ())
    own = [instance for instance, _ in pairs]
    # A router's server guards the list, which has all of them.
    instances = list(cluster.instances) if routers else own
    others = dict.fromkeys(node.host for instance in instances for node in instance.nodes)
    nodes = {instance.name: node for instance, node in pairs}
    return {
        "deployment": cluster.declaration.deployment,
        "host": host,
        "address": address,
        "port": port,
        "directory": directory(cluster),
        "release": cluster.release.name,
        "model": cluster.instances[0].settings.served_model_name,
        "protocol": kind,
        "listen": {"host": address, "port": 0} if kind == "push" else None,
        "secret_path": secret_path_of(cluster),
        "servers": {
            other: {"address": cluster.addresses[other], "port": port} for other in others if other != host
        },
        "instances": [_instance(cluster, instance) for instance in instances],
        "engines": [_engine(cluster, engine, nodes[engine["instance"]]) for engine in engines],
        "routers": [{key: value for key, value in router.items() if key != "argv"} for router in routers],
        "front": front
        and {
            "run": front["run"],
            "directory": front["directory"],
            "drain_timeout": front["drain_timeout"],
        },
        "lists": {
            "prefillers": backends(cluster, "prefiller") if routers else [],
            "decoders": backends(cluster, "decoder") if routers else [],
        },
    }


def _instance(cluster: ValidCluster, instance: Instance) -> GuardInstanceDict:
    return {
        "name": instance.name,
        "role": instance.role,
        "nodes": [node.host for node in instance.nodes],
        "apis": [api for node in instance.nodes for api in _apis(cluster, node)],
    }


def _engine(cluster: ValidCluster, engine: EngineDict, node: Node) -> GuardEngineDict:
    return {
        "container": engine["container"],
        "instance": engine["instance"],
        "role": engine["role"],
        "node_rank": engine["node_rank"],
        "apis": list(_apis(cluster, node)),
        "script_path": engine["script_path"],
    }


def _apis(cluster: ValidCluster, node: Node) -> Iterator[str]:
    for port in node.api_ports:
        yield places([{"host": cluster.addresses[node.host], "port": port}])
