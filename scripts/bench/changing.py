"""The steps of a change of many instances: from the looks at the servers to what each host does."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import clusters
from runs import ROOT

#: Servers of the generated cluster: 50 prefillers of two, 50 decoders of one.
SERVERS = 150
FRONT = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"client": "k" * 32}}
#: What is planned anew, and how many instances change at once.
CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "one at a time": ({"pd_engine_env": {"CHANGED": "1"}}, 1),
    "ten at a time": ({"pd_engine_env": {"CHANGED": "1"}}, 10),
    "another version": ({"pd_model_path": "/models/other"}, 1),
    "nothing": ({}, 1),
}


def measure(report: dict[str, Any]) -> None:
    """Every instance is looked at, the steps are computed, and each host's part of each step."""
    sys.path.insert(0, str(ROOT))
    from plugins.plugin_utils._serving.groups import decide
    from plugins.plugin_utils.rollout.change import execution, seen, steps

    before = _plan({})
    instances = len(before["instances"])
    print(f"Steps of a change of {instances} instances on {SERVERS} servers")
    figures: dict[str, Any] = {}
    for name, (variables, unavailable) in CHANGES.items():
        plan = _plan(variables)
        looks = {host: _look(before["hosts"][host], plan["hosts"][host]) for host in plan["hosts"]}
        options = steps.Options(front=True, colocated=False, unavailable=unavailable)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            now = seen.seen(plan, looks, decide(looks, list(looks)).why)
            change = steps.steps(now, options)
            done = execution.execution(plan, change, looks)
            times.append(time.perf_counter() - began)
        figures[name] = {"seconds": statistics.median(times), "steps": len(done)}
        print(f"  {name:<16}  {len(done):3} steps  {statistics.median(times):6.3f} s")
    report["steps"] = {"instances": instances, "changes": figures}


def _plan(variables: dict[str, Any]) -> Any:
    from plugins.plugin_utils.rollout import inventory, plan

    shapes, hosts = clusters.in_memory(SERVERS, inventory.GroupShape)
    given = {host: {**own, **FRONT, **variables} for host, own in hosts.items()}
    return plan.make(inventory.raw_inventory("generated", shapes, given)).to_dict()


def _look(ran: Any, planned: Any) -> dict[str, Any]:
    """What deployment_info says of a server on which another plan runs."""
    from plugins.module_utils._serving import entry, nodes, running

    parts = [*planned["engines"], *planned["routers"][:1]]
    listed = [
        {
            "Names": [f"/{part['container']}"],
            "State": "running",
            "ImageID": part["image"],
            "Labels": part["labels"],
        }
        for part in (*ran["engines"], *ran["routers"][:1])
    ]
    compared = entry.compare(listed, ["prefiller", "decoder", "proxy"], parts, {}, {})
    routers = {"serve": "blue", "active": "blue", "retire": []} if planned["routers"] else None
    found = {running.name_of(one): one for one in listed}
    return {
        **compared,
        "nodes": [_node(part, found[part["container"]], compared["broken"], nodes) for part in parts],
        "containers": running.containers(listed, {}),
        "lists": running.lists(listed, routers),
        "routers": routers,
        "routers_up": running.routers_up(listed),
        "front": {"settled": True},
        "drained": "",
        "outdated": [],
        "leftovers": [],
    }


def _node(part: Any, container: Any, broken: list[str], nodes: Any) -> dict[str, Any]:
    instance = part["labels"]["pd_rollout.instance"]
    why, mend = nodes.difference(container) if instance in broken else ("", "")
    return {
        "container": part["container"],
        "instance": instance,
        "group": nodes.group_of(part),
        "why": why,
        "mend": mend,
        "answers": not why,
        "noted": True,
        "generation": "1",
    }
