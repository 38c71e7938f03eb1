# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of `vllm serve`, flag by flag."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import expansion
from ..model import Cluster, Instance, Node, Rank, ValidCluster, canonical
from .transfer import kv_transfer_config

# Flags that the planner writes itself, with what determines each; pd_engine_args cannot set them.
COMPUTED_FLAGS: Mapping[str, str] = {
    "port": "pd_api_port",
    "served-model-name": "pd_served_model_name",
    "model": "pd_model_path",
    "tensor-parallel-size": "pd_parallel.tensor",
    "prefill-context-parallel-size": "pd_parallel.prefill_context",
    "decode-context-parallel-size": "pd_parallel.decode_context",
    "pipeline-parallel-size": "pd_parallel.pipeline",
    "data-parallel-size": "pd_parallel.data",
    "data-parallel-size-local": "pd_parallel.data_local",
    "data-parallel-start-rank": "the order of hosts in the inventory",
    "data-parallel-rank": "the order of hosts in the inventory",
    "data-parallel-external-lb": "pd_dp_mode",
    "data-parallel-hybrid-lb": "pd_dp_mode",
    "data-parallel-address": "the order of hosts in the inventory",
    "data-parallel-rpc-port": "pd_dp_rpc_port",
    "nnodes": "the hosts of the instance's group",
    "node-rank": "the order of hosts in the inventory",
    "headless": "the order of hosts in the inventory",
    "master-addr": "the order of hosts in the inventory",
    "master-port": "pd_master_port",
    "kv-transfer-config": (
        "pd_kv_connector, pd_kv_port, pd_engine_id, pd_kv_extra_config and pd_kv_transfer_config"
    ),
}


@dataclass(frozen=True)
class Argument:
    """One flag with its values; ``variable`` is the launch script's variable for the last value, if any."""

    words: tuple[str, ...]
    variable: str | None = None

    def text(self) -> str:
        """Return the flag as the launch script writes it."""
        if self.variable is None:
            return " ".join(quoted(word) for word in self.words)
        return " ".join([*(quoted(word) for word in self.words[:-1]), f'"${self.variable}"'])


@lru_cache(maxsize=4096)
def quoted(word: str) -> str:
    return shlex.quote(word)


def _value(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        return (json.dumps(value, ensure_ascii=False),)
    if isinstance(value, list):
        return tuple(word for item in value for word in _value(item))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return (str(value),)


def flag_arguments(cluster: Cluster, name: str, value: Any) -> Iterator[Argument]:
    """Return a flag of pd_engine_args: true and false as --name and --no-name, mappings as JSON, lists as
    several words, or as JSON if the option has one JSON value. Dotted flags always have JSON values
    (V@0.13.0:vllm/utils/argparse_utils.py:314)."""
    one_value = "." in name or cluster.release.kinds.get(canonical(name)) == "json"
    if (isinstance(value, list) and one_value) or (isinstance(value, bool) and "." in name):
        yield Argument((f"--{name}", json.dumps(value, ensure_ascii=False)))
    elif value is True:
        yield Argument((f"--{name}",))
    elif value is False:
        if canonical(name) not in cluster.release.flag_options:
            yield Argument((f"--no-{name}",))
    else:
        yield Argument((f"--{name}", *_value(value)))


def serve_arguments(
    cluster: ValidCluster, instance: Instance, node: Node, rank: Rank | None = None
) -> list[Argument]:
    """Return the flags of ``vllm serve`` for one node, or for one of its ranks, in the guides' order."""
    settings, parallel, head = instance.settings, instance.parallel, instance.head
    explicit = node.settings.profile.roles[instance.role].explicit
    arguments = [Argument((node.settings.model_path,))]
    rest = dict(node.args)
    if "host" in rest:
        arguments.append(Argument(("--host", *_value(rest.pop("host")))))
    if rank is None:
        arguments.append(Argument(("--port", str(settings.api_port))))
    else:
        arguments.append(Argument(("--port", str(rank.api_port)), "port"))

    def computed(name: str, value: int, default: int | None) -> None:
        if value != default or name in explicit:
            arguments.append(Argument((f"--{name}", str(value))))

    head_address = cluster.addresses[head.host]
    # A rank with its own API server is alone in its process: its local size is 1, and is not written.
    place = (
        (
            Argument(("--data-parallel-size-local", str(node.data_local))),
            Argument(("--data-parallel-start-rank", str(node.data_start))),
        )
        if rank is None
        else (Argument(("--data-parallel-rank", str(rank.number)), "rank"),)
    )
    data_parallel = (
        Argument(("--data-parallel-size", str(parallel.data))),
        *place,
        Argument(
            ("--data-parallel-address", head_address),
            expansion.LOCAL_IP if node.rank == 0 else expansion.MASTER_ADDR,
        ),
        Argument(("--data-parallel-rpc-port", str(settings.dp_rpc_port))),
    )
    arguments.extend(a for a in data_parallel if parallel.data > 1 or a.words[0][2:] in explicit)
    computed("tensor-parallel-size", parallel.tensor, None)
    computed("prefill-context-parallel-size", parallel.prefill_context, 1)
    computed("decode-context-parallel-size", parallel.decode_context, 1)
    computed("pipeline-parallel-size", parallel.pipeline, 1)
    for name, value in rest.items():
        if name == "api-server-count" and node.rank > 0 and rank is None:
            continue  # refused in headless mode (V@0.13.0:vllm/entrypoints/cli/serve.py)
        arguments.extend(flag_arguments(cluster, name, value))
    arguments.append(Argument(("--served-model-name", node.settings.served_model_name)))
    if instance.spans_nodes:
        arguments.append(Argument(("--nnodes", str(len(instance.nodes)))))
        arguments.append(Argument(("--node-rank", str(node.rank))))
    if not node.api_ports:
        arguments.append(Argument(("--headless",)))
    if instance.spans_nodes:
        arguments.append(Argument(("--master-addr", head_address), expansion.MASTER_ADDR))
        arguments.append(Argument(("--master-port", str(settings.master_port))))
    if cluster.colocated:
        return arguments
    transfer = json.dumps(kv_transfer_config(cluster, instance, node), ensure_ascii=False)
    arguments.append(Argument(("--kv-transfer-config", transfer)))
    return arguments


def words(arguments: list[Argument]) -> list[str]:
    """Return the arguments as a process receives them."""
    return [word for argument in arguments for word in argument.words]
