# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about parallel sizes and chips."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import ERROR, HINT, Finding, Rule, shown
from ..model import Node
from ..topology import given_flags, joined
from .base import Context, at_node, rule


def _chips(chips: tuple[int, ...]) -> str:
    """Chip numbers for people."""
    if len(chips) > 1 and chips[-1] - chips[0] == len(chips) - 1:
        return f"{chips[0]}-{chips[-1]}"
    return ",".join(map(str, chips))


@rule(
    "PD201",
    ERROR,
    "An instance's ranks divide evenly among its nodes",
    cure="change pd_parallel, or the number of hosts in the instance's group",
    source="V@0.13.0:vllm/v1/executor/multiproc_executor.py",
)
def world_divides(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        world, nodes = instance.parallel.world_size, len(instance.nodes)
        if instance.spans_nodes and world % nodes:
            yield r.at(
                f"global world_size ({world}) must be divisible by nnodes_within_dp ({nodes}). ".strip(),
                instance=instance.name,
                variable="pd_parallel",
                seen=f"tensor × prefill_context × pipeline = {world} on {nodes} nodes",
                expected=f"a multiple of {nodes}",
            )


@rule(
    "PD202",
    ERROR,
    "Tensor × pipeline × data ranks divide evenly among the nodes (prefill context is not counted)",
    cure="change pd_parallel, or the number of hosts in the instance's group",
    source="V@0.13.0:vllm/engine/arg_utils.py:1417-1436",
)
def ranks_divide(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        sizes, nodes = instance.parallel, len(instance.nodes)
        world = sizes.data * sizes.pipeline * sizes.tensor
        if instance.spans_nodes and world % nodes:
            yield r.at(
                f"world_size={world} must be divisible by nnodes={nodes}.",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"data × pipeline × tensor = {world} on {nodes} nodes",
                expected=f"a multiple of {nodes}",
            )


@rule(
    "PD203",
    ERROR,
    "Every node has enough chips for its ranks",
    cure="lower tensor, prefill_context or data, add hosts to the instance, or give it more chips",
    source="A@v0.13.0:vllm_ascend/worker/worker.py",
)
def enough_chips(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_parallel", "pd_chips", "pd_chips_per_node"):
        need = instance.local_world_size
        if need > len(node.chips):
            yield r.at(
                f"local_world_size ({need}) must be less than or equal to the number of visible devices "
                f"({len(node.chips)}).",
                **at_node(instance, node),
                variable="pd_parallel",
                seen=f"{need} ranks and {len(node.chips)} chips",
                expected=f"at most {len(node.chips)} ranks on this host",
            )


@rule(
    "PD204",
    HINT,
    "No chip of an instance is idle",
    cure="raise pd_parallel, or list only the chips that it uses in pd_chips",
    source="A@v0.13.0:docs/source/installation.md",
)
def idle_chips(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_parallel", "pd_chips", "pd_chips_per_node"):
        need = instance.local_world_size
        if need < len(node.chips):
            yield r.at(
                f"the instance has {len(node.chips)} chips on this host and uses {need}",
                **at_node(instance, node),
                variable="pd_chips",
                seen=f"{len(node.chips)} chips",
                expected=f"{need} chips",
            )


@rule(
    "PD205",
    ERROR,
    "Every chip belongs to one instance only",
    cure="give each instance of the host its own chips with pd_chips",
    source="A@v0.13.0:vllm_ascend/worker/worker.py (Error in memory profiling)",
)
def chips_apart(r: Rule, c: Context) -> Iterator[Finding]:
    for host, pairs in c.cluster.by_host.items():
        owner: dict[int, str] = {}
        for instance, node in pairs:
            shared = tuple(chip for chip in node.chips if chip in owner)
            if shared:
                others = dict.fromkeys(owner[chip] for chip in shared)
                yield r.at(
                    f"{instance.name} and {joined(others)} both use chips {_chips(shared)}",
                    host=host,
                    instance=instance.name,
                    variable="pd_chips",
                    seen=_chips(node.chips),
                    expected="chips that no other instance of this host uses",
                )
            owner.update((chip, instance.name) for chip in node.chips if chip not in owner)


@rule(
    "PD206",
    ERROR,
    "Chip numbers exist on the server",
    cure="correct pd_chips, or pd_chips_per_node",
    source="A@v0.13.0:docs/source/installation.md",
)
def chips_exist(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_chips", "pd_chips_per_node"):
        last = node.settings.chips_per_node - 1
        beyond = tuple(chip for chip in node.chips if chip > last)
        if beyond:
            yield r.at(
                f"the server has no chips {_chips(beyond)}",
                **at_node(instance, node),
                variable="pd_chips",
                seen=_chips(node.chips),
                expected=f"numbers from 0 to {last}",
            )


@rule(
    "PD207",
    ERROR,
    "The data-parallel ranks of all nodes add up to the data-parallel size",
    cure="make data_local × the number of nodes equal data",
    source="V@0.13.0:vllm/config/parallel.py:286",
)
def data_ranks(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        sizes, nodes = instance.parallel, len(instance.nodes)
        local = instance.head.data_local if sizes.data > 1 else sizes.data_local or 1
        if local > sizes.data:
            yield r.at(
                f"data_parallel_size_local ({local}) must be <= data_parallel_size ({sizes.data})",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"data {sizes.data}, data_local {local}",
                expected=f"data_local {max(1, sizes.data // nodes)}",
            )
        elif sizes.data > 1 and sizes.data >= nodes and local * nodes != sizes.data:
            yield r.at(
                f"{nodes} nodes with {local} ranks each do not add up to {sizes.data} data-parallel ranks",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"data {sizes.data}, data_local {local}, {nodes} nodes",
                expected=f"data_local × {nodes} = data",
            )


@rule(
    "PD208",
    ERROR,
    "A data-parallel rank fits on one node",
    cure="give the instance at most as many hosts as data-parallel ranks, or split it into several instances",
    source="V@0.13.0:vllm/engine/arg_utils.py:1417-1436",
)
def data_rank_in_node(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        data, nodes = instance.parallel.data, len(instance.nodes)
        if 1 < data < nodes:
            yield r.at(
                f"{data} data-parallel ranks on {nodes} nodes: a rank can span several nodes only if it is "
                "the only one",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"data {data}, {nodes} nodes",
                expected=f"data 1, or a multiple of {nodes}",
            )


def _divisors(value: int, limit: int = 12) -> str:
    found = [str(n) for n in range(1, min(value, 4096) + 1) if value % n == 0]
    return joined(found, limit)


@rule(
    "PD211",
    ERROR,
    "The decode context size is a divisor of the tensor size",
    cure="choose a decode_context that divides tensor",
    source="V@0.13.0:vllm/engine/arg_utils.py:1354",
)
def decode_context_divides(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        sizes = instance.parallel
        if sizes.tensor % sizes.decode_context:
            yield r.at(
                f"tp_size={sizes.tensor} must be divisible bydcp_size={sizes.decode_context}.",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"tensor {sizes.tensor}, decode_context {sizes.decode_context}",
                expected=f"decode_context one of {_divisors(sizes.tensor)}",
            )


@rule(
    "PD212",
    ERROR,
    "The model's attention heads divide evenly among the tensor ranks",
    cure="choose a tensor size that divides the number of heads",
    source="V@0.13.0:vllm/config/model.py",
)
def heads_divide(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_profile"):
        heads = instance.settings.profile.heads
        if heads and heads % instance.parallel.tensor:
            yield r.at(
                f"Total number of attention heads ({heads}) must be divisible by tensor parallel size "
                f"({instance.parallel.tensor}).",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"tensor {instance.parallel.tensor}",
                expected=f"one of {_divisors(heads)}",
            )


@rule(
    "PD213",
    ERROR,
    "Without MLA, the decode context size fits the number of key/value heads",
    cure="lower decode_context, or raise tensor",
    source="V@0.13.0:vllm/config/model.py:1053",
)
def decode_context_fits_heads(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_profile"):
        profile, sizes = instance.settings.profile, instance.parallel
        kv_heads, dcp = profile.kv_heads, sizes.decode_context
        if profile.attention != "gqa" or not kv_heads or dcp == 1:
            continue
        largest = sizes.tensor // kv_heads
        if sizes.tensor <= kv_heads:
            message = (
                f"tensor parallel size {sizes.tensor} must be greater than total num kv heads {kv_heads} "
                "when enable "
                "decode context parallel for GQA/MQA"
            )
        elif dcp > largest:
            message = (
                "decode context parallel size must less than or equal to (tensor parallel size "
                f"{sizes.tensor} // total "
                f"num kv heads {kv_heads}) = {largest}, but got {dcp}"
            )
        elif profile.heads and (profile.heads // kv_heads) % dcp:
            message = (
                f"Total number of q per kv attn heads ({profile.heads // kv_heads}) must be divisible by "
                "dcp world size "
                f"when enable decode context parallel for GQA ({dcp})."
            )
        else:
            continue
        yield r.at(
            message,
            instance=instance.name,
            variable="pd_parallel",
            seen=f"tensor {sizes.tensor}, decode_context {dcp}, {kv_heads} kv heads",
            expected=f"decode_context at most {max(1, largest)}",
        )


# What must be the same on all nodes of one instance, by variable.
_SHARED = {
    "pd_parallel": "parallel",
    "pd_profile": "profile",
    "pd_dp_mode": "dp_mode",
    "pd_api_port": "api_port",
    "pd_master_port": "master_port",
    "pd_dp_rpc_port": "dp_rpc_port",
    "pd_kv_port": "kv_port",
    "pd_kv_connector": "connector",
    "pd_kv_transfer_config": "kv_transfer_config",
    "pd_kv_extra_config": "kv_extra_config",
    "pd_served_model_name": "served_model_name",
    "pd_engine_args": "engine_args",
}


# Flags that are each node's own: of the API, which the first node alone serves, of its logs, and of what a
# node has of memory, disks and processors.
NODE_FLAGS = frozenset(
    {
        "aggregate-engine-logging",
        "allow-credentials",
        "allowed-headers",
        "allowed-methods",
        "allowed-origins",
        "api-server-count",
        "disable-access-log-for-endpoints",
        "disable-log-requests",
        "disable-log-stats",
        "disable-uvicorn-access-log",
        "download-dir",
        "enable-log-outputs",
        "enable-log-requests",
        "enable-server-load-tracking",
        "enable-ssl-refresh",
        "gpu-memory-utilization",
        "host",
        "log-config-file",
        "max-log-len",
        "numa-bind",
        "numa-bind-cpus",
        "numa-bind-nodes",
        "root-path",
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "ssl-certfile",
        "ssl-ciphers",
        "ssl-keyfile",
        "uds",
        "uvicorn-log-level",
    }
)


@rule(
    "PD108",
    ERROR,
    "All nodes of an instance have the same engine settings",
    cure="set it once, in the group_vars of the instance",
    source="V@0.13.0:vllm/engine/arg_utils.py:1417-1436",
)
def nodes_agree(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.cluster.instances:
        for variable, attribute in _SHARED.items():
            readable = [node for node in instance.nodes if variable not in node.settings.unread]
            if not readable:
                continue
            first = _get(c, readable[0], attribute)
            for node in readable[1:]:
                value = _get(c, node, attribute)
                if value is not first and value != first:
                    yield r.at(
                        f"{variable} differs from its value on {readable[0].host}, but both hosts form one "
                        "engine",
                        **at_node(instance, node),
                        variable=variable,
                        seen=shown(value),
                        expected=shown(first),
                    )


def _get(c: Context, node: Node, attribute: str) -> object:
    value = getattr(node.settings, attribute)
    if attribute == "engine_args":
        given = given_flags(c.cluster.release, value)
        return {flag.written: flag.value for flag in given if flag.name not in NODE_FLAGS}
    return value.name if attribute == "profile" else value


@rule(
    "PD222",
    ERROR,
    "ASCEND_RT_VISIBLE_DEVICES is left to the planner",
    cure="remove it from pd_engine_env, and list the instance's chips in pd_chips",
    source="A@v0.13.0:examples/external_online_dp/launch_online_dp.py",
)
def chips_by_name(r: Rule, c: Context) -> Iterator[Finding]:
    """The container has the engine's chips only and numbers them from 0, so the server's numbers would be
    wrong there. Without the variable, an engine sees all of them in order."""
    for instance, node in c.nodes("pd_engine_env"):
        value = node.env.get("ASCEND_RT_VISIBLE_DEVICES")
        own = ",".join(map(str, range(len(node.chips))))
        if value is not None and value.replace(" ", "") != own:
            yield r.at(
                "ASCEND_RT_VISIBLE_DEVICES is set by hand",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"ASCEND_RT_VISIBLE_DEVICES={value}",
                expected=f"pd_chips: {value}",
            )
