# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Servers in memory, with containers made from slices of plans: what deployment_info says of them, and what
the role rollout does with them in a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import nodes, running
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.entry import compare

ROLES = ("prefiller", "decoder", "proxy")
COLOURS = ("blue", "green")


def image_id(name: str) -> str:
    return f"sha256:{name}"


def container(part: Mapping[str, Any], state: str = "running") -> dict[str, Any]:
    """A container as the Docker Engine lists it, made from a slice of a plan."""
    return {
        "Names": [f"/{part['container']}"],
        "State": state,
        "ImageID": image_id(part["image"]),
        "Labels": dict(part["labels"]),
        "Mounts": [{"Source": part["script_path"]}],
    }


class Servers:
    """The servers of a deployment; empty at first."""

    def __init__(self, *hosts: str) -> None:
        self.containers: dict[str, dict[str, dict[str, Any]]] = {host: {} for host in hosts}
        # The colour that gets the requests, by host.
        self.active: dict[str, str] = {}
        self.marks: dict[str, str] = {}
        # Names of containers in the order in which they were started.
        self.started: list[str] = []

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Servers:
        """Servers on which everything runs as planned."""
        servers = cls(*plan["hosts"])
        for host, share in plan["hosts"].items():
            for part in share["engines"]:
                servers.start(host, part)
            for router in share["routers"][:1]:
                servers.switch(host, router)
        servers.started.clear()
        return servers

    def start(self, host: str, part: Mapping[str, Any]) -> None:
        """Start a container, unless it runs as its slice says."""
        wanted = container(part)
        if self.containers[host].get(part["container"]) != wanted:
            self.containers[host][part["container"]] = wanted
            self.started.append(part["container"])

    def switch(self, host: str, router: Mapping[str, Any]) -> None:
        """Start a router, and end the one that served before."""
        self.start(host, router)
        for name, one in self.containers[host].items():
            if one["Labels"]["pd_rollout.role"] == "proxy" and name != router["container"]:
                one["State"] = "exited"
        if router["colour"]:
            self.active[host] = router["colour"]

    def stop(self, host: str, name: str) -> None:
        self.containers[host][name]["State"] = "exited"

    def looks(self, plan: Mapping[str, Any], hosts: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
        """Results of deployment_info by host."""
        return {host: self.look(plan, host) for host in hosts or self.containers}

    def look(self, plan: Mapping[str, Any], host: str) -> dict[str, Any]:
        share = plan["hosts"].get(host) or {"engines": [], "routers": []}
        found = list(self.containers[host].values())
        pair = [router for router in share["routers"] if router["colour"]]
        chosen = self._chosen(host, pair)
        planned = [*share["engines"], *([chosen] if chosen else share["routers"])]
        ids = {part["image"]: image_id(part["image"]) for part in planned}
        compared = compare(found, ROLES, planned, {}, ids)
        routers = None
        if chosen is not None:
            up = {router["name"] for router in running.routers_up(found)}
            retire = [stray for stray in compared["strays"] if stray["name"] in up]
            compared["strays"] = [stray for stray in compared["strays"] if stray not in retire]
            routers = {"serve": chosen["colour"], "active": self.active.get(host), "retire": retire}
        return {
            "nodes": [self._node(host, part, compared["broken"]) for part in planned],
            "front": {"settled": True},
            "routers": routers,
            "containers": running.containers(
                found, {part["container"]: image_id(part["image"]) for part in planned}
            ),
            "lists": running.lists(found, routers),
            "drained": self.marks.get(host, ""),
            "routers_up": running.routers_up(found),
            "outdated": [],
            "leftovers": [],
            **compared,
        }

    def _chosen(self, host: str, pair: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The router that is to serve: the one that does, if it is as planned, else the other one."""
        if not pair:
            return None
        here = self.containers[host]
        serving = next((one for one in pair if one["colour"] == self.active.get(host)), None)
        if serving is None or here.get(serving["container"]) == container(serving):
            return serving or pair[0]
        return next(one for one in pair if one is not serving)

    def _node(self, host: str, part: Mapping[str, Any], broken: list[str]) -> dict[str, Any]:
        differs = part["labels"]["pd_rollout.instance"] in broken
        found = self.containers[host].get(part["container"])
        why, mend = nodes.difference(found) if differs else ("", "")
        return {
            "container": part["container"],
            "instance": part["labels"]["pd_rollout.instance"],
            "group": nodes.group_of(part),
            "why": why,
            "mend": mend,
            "started_at": "t",
            "noted": True,
            "generation": "1",
            "pending": bool(why),
            "seconds": None,
            "answers": not why,
        }

    def listed(self) -> set[str]:
        """The APIs that routers ask."""
        found: set[str] = set()
        for host, here in self.containers.items():
            routers = {"active": self.active[host]} if host in self.active else None
            for apis in (running.lists([*here.values()], routers) or {}).values():
                found |= {*apis}
        return found

    def do(self, step: Mapping[str, Any]) -> None:
        """What the role rollout does in a step, on all hosts; nothing that is asked is stopped."""
        if step["closed"]:
            for host in step["hosts"]:
                for router in running.routers_up([*self.containers[host].values()]):
                    self.stop(host, router["name"])
        elif step["lists"] is not None:
            for host, share in step["hosts"].items():
                self._have_listed(host, share["routers"])
        for host, share in step["hosts"].items() if step["changes"] else ():
            self._change(host, share)

    def _have_listed(self, host: str, routers: list[Mapping[str, Any]]) -> None:
        here = self.containers[host]
        up = [router for router in routers if here.get(router["container"]) == container(router)]
        serving = [router for router in up if router["colour"] in (None, self.active.get(host))]
        others = [router for router in routers if router["colour"] != self.active.get(host)]
        for router in (serving or others or routers)[:1]:
            self.switch(host, router)

    def _change(self, host: str, share: Mapping[str, Any]) -> None:
        drained = {one["container"] for one in share["drain"]}
        assert drained == {*share["stop"]["heads"]}, "what is stopped has finished its requests"
        assert not {api for one in share["drain"] for api in one["apis"]} & self.listed()
        for name in (*share["stop"]["heads"], *share["stop"]["others"]):
            self.stop(host, name)
        for stray in share["remove"]:
            assert self.containers[host].pop(stray["name"])["State"] != "running"
        for part in share["engines"]:
            self.start(host, part)
        # The role engine removes every other engine.
        here = self.containers[host]
        kept = {*share["kept"], *(part["container"] for part in share["engines"])}
        engines = {name for name, one in here.items() if one["Labels"]["pd_rollout.role"] != "proxy"}
        for name in engines - kept:
            assert here.pop(name)["State"] != "running"
