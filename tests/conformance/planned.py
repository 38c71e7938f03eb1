"""Inventories for the conformance tests, what the rules say of them, and what they would launch: the rules do
not stop it here, so that the real engine can be asked too."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from .conftest import ROOT, VERSION

sys.path.insert(0, str(ROOT))

from plugins.plugin_utils.rollout import inventory, launch, ports, rules, topology
from plugins.plugin_utils.rollout.findings import ERROR, Finding
from plugins.plugin_utils.rollout.inventory import GroupShape, RawInventory, raw_inventory
from plugins.plugin_utils.rollout.model import Cluster, Instance, Parallel, ValidCluster
from plugins.plugin_utils.rollout.rules.base import ASCEND_BLOCK_SIZE, block_size

RELEASE = f"v{VERSION}"
MODELS = ROOT / "tests" / "conformance" / "models"
ROLES = {
    "prefiller": {"pd_parallel": {"tensor": 16, "prefill_context": 2, "decode_context": 8}},
    "decoder": {"pd_parallel": {"tensor": 16}},
}
"""The guide's sizes, where a case does not say others."""


def small(case: Mapping[str, Any]) -> RawInventory:
    """The guide's topology, with the changes of a case: `nodes` of each role, variables for `all` and for
    each role, `model`."""
    colocated = case.get("all", {}).get("pd_mode") == "colocated"
    nodes = {"prefiller": 0 if colocated else 2, "decoder": 1, **case.get("nodes", {})}
    shapes: dict[str, GroupShape] = {}
    variables: dict[str, dict[str, Any]] = {}
    for role, base in ROLES.items():
        names = tuple(f"{role[0]}{number}" for number in range(1, nodes[role] + 1))
        shapes[role] = GroupShape(names, names, ())
        for name in names:
            variables[name] = {
                "ansible_host": f"198.51.100.{len(variables) + 1}",
                "pd_release": RELEASE,
                "pd_image": f"registry.example/vllm-ascend:{RELEASE}-a3",
                "pd_model_path": str(MODELS / case.get("model", "mla")),
                "pd_served_model_name": "model",
                "pd_interface": "eth0",
                **base,
                **case.get("all", {}),
                **case.get(role, {}),
            }
    proxy = () if colocated else ("p1",)
    shapes["proxy"] = GroupShape(proxy, proxy, ())
    return raw_inventory("small", shapes, variables)


@dataclass(frozen=True)
class Planned:
    """A cluster, whatever the rules say of it, and what they say."""

    cluster: Cluster
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> set[str]:
        return {finding.code for finding in self.findings if finding.severity == ERROR}

    def servers(self, role: str | None = None) -> Iterator[Server]:
        """Every `vllm serve` of it, or of one role. A host without a valid address gets an empty one."""
        valid = ValidCluster.checked(self.cluster)
        valid = replace(valid, addresses={**dict.fromkeys(valid.by_host, ""), **valid.addresses})
        for instance in self.cluster.instances:
            for node in instance.nodes if role in (None, instance.role) else ():
                engine = launch.engine(valid, instance, node)
                if engine["ranks"]:
                    for rank in engine["ranks"]:
                        places = workers(instance.parallel, rank["rank"], 0, instance.parallel.world_size)
                        yield Server(rank, tuple(places), self.peer(instance))
                else:
                    size = engine["local_world_size"] // max(1, node.data_local)
                    first = node.rank * size if instance.spans_nodes else 0
                    numbers = range(node.data_start, node.data_start + node.data_local)
                    places = [p for data in numbers for p in workers(instance.parallel, data, first, size)]
                    yield Server(engine, tuple(places), self.peer(instance))

    def peer(self, instance: Instance) -> dict[str, int] | None:
        """What a decoder is told of the first prefiller with a request."""
        first = next(iter(self.cluster.of("prefiller")), None)
        if first is None or instance.role == "prefiller":
            return None
        sizes = first.parallel
        return {
            "remote_pcp_size": sizes.prefill_context,
            "remote_dcp_size": sizes.decode_context,
            "remote_ptp_size": sizes.tensor,
            "remote_port": first.kv_port,
            "remote_block_size": block_size(first.head) or ASCEND_BLOCK_SIZE,
        }


@dataclass(frozen=True)
class Server:
    """One `vllm serve`: its share of the plan, and the places of its workers."""

    planned: dict[str, Any]
    places: tuple[tuple[int, int, int, int], ...]
    peer: dict[str, int] | None

    def request(self) -> dict[str, Any]:
        """What real_engine.py is asked."""
        request = {"argv": self.planned["argv"][1:], "env": self.planned["env"], "ranks": self.places}
        return request if self.peer is None else {**request, "peer": self.peer}


def workers(sizes: Parallel, data: int, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Places of the workers of one data-parallel rank on one node: data, pipeline, context and tensor rank,
    the last of them fastest (V@0.13.0:vllm/distributed/parallel_state.py, initialize_model_parallel)."""
    order = list(product(range(sizes.pipeline), range(sizes.prefill_context), range(sizes.tensor)))
    yield from ((data, *place) for place in order[first : first + count])


def planned(raw: RawInventory) -> Planned:
    declaration, found = inventory.read(raw)
    cluster = topology.build(declaration)
    return Planned(cluster, (*found, *rules.check(cluster, ports.table(cluster))))
