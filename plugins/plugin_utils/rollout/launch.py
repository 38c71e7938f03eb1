# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What each engine and the proxy are started with: environment, arguments, container, script."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from . import expansion
from .model import KV_ROLES, Cluster, Instance, Mount, Node, Proxy, Rank, canonical
from .secrecy import in_settings
from .topology import connector_of, handshake_ports, listens

# Where the secret's file stands inside the container.
SECRET_TARGET = "/run/secrets/pd_api_key"

# Flags that the planner writes itself; pd_engine_args cannot set them. With the variable that decides each.
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

# Fields of --kv-transfer-config that the planner writes itself, with the variable that decides each.
KV_FIELDS: Mapping[str, str] = {
    "kv_connector": "pd_kv_connector",
    "kv_role": "the group of the hosts",
    "kv_port": "pd_kv_port",
    "engine_id": "pd_engine_id",
    "kv_connector_extra_config": "pd_kv_extra_config",
}

# How vLLM splits the layers over a pipeline, where not evenly (V@0.13.0:vllm/distributed/utils.py:111). A
# decoder must be told, in prefill.pp_layer_partition.
LAYER_PARTITION = "VLLM_PP_LAYER_PARTITION"

# Found in the image, which may lack iproute2: the interface that holds an address, by SIOCGIFCONF (64-bit
# layout).
_FIND_NIC = """\
nic_name="$(python3 - "$local_ip" <<'PYTHON'
import array, fcntl, socket, struct, sys
table = array.array("B", bytes(65536))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    request = struct.pack("iL", len(table), table.buffer_info()[0])
    size = struct.unpack("iL", fcntl.ioctl(s, 0x8912, request))[0]
rows = (table[i:i + 40].tobytes() for i in range(0, size, 40))
mine = [r[:16] for r in rows if socket.inet_ntoa(r[20:24]) == sys.argv[1]]
if not mine:
    sys.exit("no network interface of this server has the address " + sys.argv[1])
print(mine[0].split(b"\\0")[0].decode().split(":")[0])
PYTHON
)"
"""


@dataclass(frozen=True)
class Line:
    """One flag with its values; ``shell`` is how the script writes them where it uses a variable."""

    words: tuple[str, ...]
    shell: str | None = None

    def text(self) -> str:
        return self.shell or " ".join(quoted(word) for word in self.words)


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


def flag_lines(cluster: Cluster, name: str, value: Any) -> Iterator[Line]:
    """A flag of pd_engine_args: true and false as --name and --no-name, mappings as JSON, lists as several
    words, or as JSON where the option takes one value of it. So is all that stands behind a dot
    (V@0.13.0:vllm/utils/argparse_utils.py:314)."""
    one_value = "." in name or cluster.release.kinds.get(canonical(name)) == "json"
    if (isinstance(value, list) and one_value) or (isinstance(value, bool) and "." in name):
        yield Line((f"--{name}", json.dumps(value, ensure_ascii=False)))
    elif value is True:
        yield Line((f"--{name}",))
    elif value is False:
        if canonical(name) not in cluster.release.flag_options:
            yield Line((f"--no-{name}",))
    else:
        yield Line((f"--{name}", *_value(value)))


def serve_lines(cluster: Cluster, instance: Instance, node: Node, rank: Rank | None = None) -> list[Line]:
    """`vllm serve` for one node, or for one rank of it, one flag a line, as the guides write it."""
    settings, parallel, head = instance.settings, instance.parallel, instance.head
    explicit = node.settings.profile.roles[instance.role].explicit
    lines = [Line((node.settings.model_path,))]
    rest = dict(node.args)
    if "host" in rest:
        lines.append(Line(("--host", *_value(rest.pop("host")))))
    if rank is None:
        lines.append(Line(("--port", str(settings.api_port))))
    else:
        lines.append(Line(("--port", str(rank.api_port)), '--port "$port"'))

    def computed(name: str, value: int, default: int | None) -> None:
        if value != default or name in explicit:
            lines.append(Line((f"--{name}", str(value))))

    address = '"$local_ip"' if node.rank == 0 else '"$master_addr"'
    # A rank with an API server of its own is alone in its process: its local size is 1, and is not given.
    place = (
        (
            Line(("--data-parallel-size-local", str(node.data_local))),
            Line(("--data-parallel-start-rank", str(node.data_start))),
        )
        if rank is None
        else (Line(("--data-parallel-rank", str(rank.number)), '--data-parallel-rank "$rank"'),)
    )
    data_parallel = (
        Line(("--data-parallel-size", str(parallel.data))),
        *place,
        Line(("--data-parallel-address", head.address or ""), f"--data-parallel-address {address}"),
        Line(("--data-parallel-rpc-port", str(settings.dp_rpc_port))),
    )
    lines.extend(line for line in data_parallel if parallel.data > 1 or line.words[0][2:] in explicit)
    computed("tensor-parallel-size", parallel.tensor, None)
    computed("prefill-context-parallel-size", parallel.prefill_context, 1)
    computed("decode-context-parallel-size", parallel.decode_context, 1)
    computed("pipeline-parallel-size", parallel.pipeline, 1)
    for name, value in rest.items():
        if name == "api-server-count" and node.rank > 0 and rank is None:
            continue  # refused in headless mode (V@0.13.0:vllm/entrypoints/cli/serve.py)
        lines.extend(flag_lines(cluster, name, value))
    lines.append(Line(("--served-model-name", node.settings.served_model_name)))
    if instance.spans_nodes:
        lines.append(Line(("--nnodes", str(len(instance.nodes)))))
        lines.append(Line(("--node-rank", str(node.rank))))
    if not node.api_ports:
        lines.append(Line(("--headless",)))
    if instance.spans_nodes:
        lines.append(Line(("--master-addr", head.address or ""), '--master-addr "$master_addr"'))
        lines.append(Line(("--master-port", str(settings.master_port))))
    if cluster.colocated:
        return lines
    transfer = json.dumps(kv_transfer_config(cluster, instance, node), ensure_ascii=False)
    lines.append(Line(("--kv-transfer-config", transfer)))
    return lines


def kv_transfer_config(cluster: Cluster, instance: Instance, node: Node) -> dict[str, Any]:
    """--kv-transfer-config of one node, in the guide's order."""
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
    """Both sides' sizes, each side's own from itself; pd_kv_extra_config is laid over."""
    extra = dict(node.settings.profile.roles[instance.role].kv_extra_config)
    extra.update(computed_sizes(cluster, instance))
    return _overlaid(extra, node.settings.kv_extra_config)


def computed_sizes(cluster: Cluster, instance: Instance) -> dict[str, dict[str, Any]]:
    """The sizes of both sides as the plan has them: its own, and those of the first instance of the other
    role."""
    prefiller = instance if instance.role == "prefiller" else _first(cluster, "prefiller", instance)
    decoder = instance if instance.role == "decoder" else _first(cluster, "decoder", instance)
    prefill: dict[str, Any] = {"dp_size": prefiller.parallel.data, "tp_size": prefiller.parallel.tensor}
    if prefiller.role == "prefiller" and prefiller.parallel.pipeline > 1:
        # A connector that is not told takes 1, and would fetch all layers from the first stage.
        prefill["pp_size"] = prefiller.parallel.pipeline
        partition = prefiller.head.env.get(LAYER_PARTITION)
        if partition is not None:
            prefill["pp_layer_partition"] = partition
    return {
        "prefill": prefill,
        "decode": {"dp_size": decoder.parallel.data, "tp_size": decoder.parallel.tensor},
    }


def _first(cluster: Cluster, role: str, fallback: Instance) -> Instance:
    return next((i for i in cluster.instances if i.role == role), fallback)


def _overlaid(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = (
            _overlaid(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
        )
    return result


def _exports(node: Node, is_set: frozenset[str]) -> Iterator[str]:
    """The environment, each variable behind those that it refers to."""
    done = is_set
    for name, value in node.exports.items():
        yield f"export {name}={expansion.written(value, done, quoted)}"
        done |= {name}


def script(cluster: Cluster, instance: Instance, node: Node, lines: list[Line]) -> str:
    """The launch script: variables, exports, one `vllm serve`."""
    settings, size = node.settings, len(instance.nodes)
    used = frozenset[str]().union(*map(expansion.names, node.exports.values()))
    part = f", node {node.rank} of {size}" if size > 1 else ""
    out = [
        "#!/usr/bin/env bash",
        f"# {instance.name}{part}, on {node.host}. Written by ascend.pd_rollout: change the inventory, not "
        "this file.",
        "set -euo pipefail",
        "",
        f"local_ip={quoted(node.address or '')}",
    ]
    if settings.interface is not None:
        out.append(f"nic_name={quoted(settings.interface)}")
    elif expansion.NIC_NAME in used:
        out.extend(
            ["# pd_interface is not set: the interface that holds the address.", *_FIND_NIC.splitlines()]
        )
    if size > 1 or expansion.MASTER_ADDR in used:
        out.append(f"master_addr={quoted(instance.head.address or '')}")
    out.append("")
    out.extend(_exports(node, frozenset(expansion.SCRIPT_NAMES)))
    out.extend(_libraries(settings.profile.preload, settings.profile.library_path))
    if cluster.declaration.api_key:
        out.append(f'export VLLM_API_KEY="$(cat {SECRET_TARGET})"')
    out.extend(["", *(_servers(node, lines) if node.ranks else _command("exec vllm serve", lines))])
    return "\n".join(out) + "\n"


def _command(start: str, lines: list[Line], indent: str = "", end: str = "") -> list[str]:
    texts = [line.text() for line in lines]
    head = f"{indent}{start} {texts[0]}"
    return [f"{text} \\" for text in [head, *(f"{indent}  {t}" for t in texts[1:-1])]] + [
        f"{indent}  {texts[-1]}{end}"
    ]


_PASS_STOP_ON = """\
# A request to stop goes on to all of them.
stopping=
stop() {
  stopping=yes
  kill -TERM "${servers[@]}" 2>/dev/null || true
}
trap stop TERM INT
"""

# `wait -n` overlooks a process that has ended before it is asked for (bash before 5.3).
_UNTIL_ONE_ENDS = """\
# They are one group: when one ends, the others end with it, and the container, where everyone sees it.
while [ -z "$stopping" ]; do
  for rank in "${!servers[@]}"; do
    kill -0 "${servers[rank]}" 2>/dev/null || break 2
  done
  sleep 1 &
  wait $! || true
done
if [ -n "$stopping" ]; then
  wait "${servers[@]}" || true
  exit 0
fi
status=0
wait "${servers[rank]}" || status=$?
echo "Rank $rank has ended with exit code $status: the others are stopped."
kill -TERM "${servers[@]}" 2>/dev/null || true
# Time for the last lines of their logs; who is left then ends with the container.
sleep 1
exit "$((status == 0 ? 1 : status))"
"""


def _servers(node: Node, lines: list[Line]) -> list[str]:
    """One `vllm serve` for each rank, side by side in one container; each line of output begins with the
    rank."""
    calls = [f"serve {rank.number} {','.join(map(str, rank.places))} {rank.api_port}" for rank in node.ranks]
    return [
        "servers=()",
        "# serve RANK CHIPS PORT: the API server of one data-parallel rank.",
        "serve() {",
        "  local rank=$1 chips=$2 port=$3",
        *_command(
            'ASCEND_RT_VISIBLE_DEVICES="$chips" vllm serve',
            lines,
            indent="  ",
            end=' \\\n    > >(sed -u "s/^/[rank $rank] /") 2>&1 &',
        ),
        "  servers[rank]=$!",
        "}",
        "",
        *_PASS_STOP_ON.splitlines(),
        "",
        *calls,
        "",
        *_UNTIL_ONE_ENDS.splitlines(),
    ]


@cache
def _libraries(preload: tuple[str, ...], library_path: tuple[str, ...]) -> tuple[str, ...]:
    """What the image sets in ~/.bashrc only."""
    out: list[str] = []
    if preload:
        out.append(f"for library in {' '.join(preload)}; do")
        out.append(
            '  if [ -e "$library" ]; then export LD_PRELOAD="$library${LD_PRELOAD:+:$LD_PRELOAD}"; break; fi'
        )
        out.append("done")
    if library_path:
        out.append(
            f'export LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}{":".join(library_path)}"'
        )
    return tuple(out)


def _labels(cluster: Cluster, instance: str, role: str, content: Mapping[str, Any]) -> dict[str, str]:
    text = json.dumps(content, sort_keys=True)
    return {
        "pd_rollout.deployment": cluster.declaration.deployment,
        "pd_rollout.instance": instance,
        "pd_rollout.role": role,
        "pd_rollout.hash": hashlib.sha256(text.encode()).hexdigest(),
    }


def directory(cluster: Cluster) -> str:
    """The deployment's directory on the servers."""
    return f"{cluster.declaration.host_dir}/{cluster.declaration.deployment}"


def _secret_path(cluster: Cluster) -> str | None:
    return f"{directory(cluster)}/api_key" if cluster.declaration.api_key else None


def _own_mounts(script_path: str, secret_path: str | None) -> list[Mount]:
    mounts = [Mount(script_path, script_path, True)]
    if secret_path is not None:
        mounts.append(Mount(secret_path, SECRET_TARGET, True))
    return mounts


def engine(cluster: Cluster, instance: Instance, node: Node) -> dict[str, Any]:
    """One engine on one host, as the plan holds it."""
    settings, declaration = node.settings, cluster.declaration
    lines = serve_lines(cluster, instance, node, node.ranks[0] if node.ranks else None)
    text = script(cluster, instance, node, lines)
    script_path = f"{directory(cluster)}/{instance.name}.sh"
    secret_path = _secret_path(cluster)
    mounts = [Mount(path, path, True) for path in cluster.release.mounts]
    mounts.append(Mount(settings.model_path, settings.model_path, True))
    mounts.extend(settings.extra_mounts)
    mounts.extend(_own_mounts(script_path, secret_path))
    devices = [f"/dev/davinci{chip}" for chip in node.chips] + list(cluster.release.manager_devices)
    container = {
        "image": declaration.image,
        "devices": devices,
        "mounts": [mount.to_dict() for mount in mounts],
        "shm_size": settings.shm_size,
    }
    ports = handshake_ports(
        instance.kv_port, instance.parallel, node.rank, len(instance.nodes), connector_of(cluster, instance)
    )
    head = instance.head
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
        # With ranks, each of them has its own.
        "argv": [] if node.ranks else _argv(lines),
        "ranks": [_rank(cluster, instance, node, rank) for rank in node.ranks],
        "script": text,
        # Whether something in it looks like a secret: then it is not shown.
        "secrets": any(True for _ in in_settings(settings)),
        "script_path": script_path,
        "command": ["bash", script_path],
        "secret_path": secret_path,
        "api": {"host": node.address, "port": node.api_ports[0]} if node.api_ports else None,
        "master": {"host": head.address, "port": instance.settings.master_port}
        if instance.spans_nodes
        else None,
        "engine_id": node.engine_id,
        "kv_port": instance.kv_port,
        "handshake_ports": list(ports) if listens(cluster, instance) else [],
        "model_path": settings.model_path,
        "served_model_name": settings.served_model_name,
        "ready": {"nodes": [{"host": other.host, "rank": other.rank} for other in instance.nodes]},
        "labels": _labels(cluster, instance.name, instance.role, {**container, "script": text}),
    }


def _argv(lines: list[Line]) -> list[str]:
    return ["vllm", "serve", *(word for line in lines for word in line.words)]


def _rank(cluster: Cluster, instance: Instance, node: Node, rank: Rank) -> dict[str, Any]:
    """One rank of an engine with external data parallel, by the names that the engine itself has."""
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
        "argv": _argv(serve_lines(cluster, instance, node, rank)),
        "api": {"host": node.address, "port": rank.api_port},
        "engine_id": node.engine_id,
        "kv_port": instance.kv_port,
        "handshake_ports": list(ports) if listens(cluster, instance) else [],
    }


def backends(cluster: Cluster, role: str) -> list[dict[str, Any]]:
    """Every API of a role: the heads', or with external data parallel each rank's; headless nodes serve
    none."""
    return [
        {"host": node.address, "port": port}
        for instance in cluster.instances
        if instance.role == role
        for node in instance.nodes
        for port in node.api_ports
    ]


def proxy_lines(cluster: Cluster, proxy: Proxy) -> list[Line]:
    prefillers, decoders = backends(cluster, "prefiller"), backends(cluster, "decoder")
    return [
        Line(("--port", str(proxy.port))),
        Line(("--host", proxy.address or "")),
        Line(("--prefiller-hosts", *(str(b["host"]) for b in prefillers))),
        Line(("--prefiller-ports", *(str(b["port"]) for b in prefillers))),
        Line(("--decoder-hosts", *(str(b["host"]) for b in decoders))),
        Line(("--decoder-ports", *(str(b["port"]) for b in decoders))),
    ]


def _proxy_script(cluster: Cluster) -> str:
    """The proxy's script for the connector; of a connector made of several, for the first that has one."""
    scripts = cluster.release.proxy_scripts
    for settings in (instance.settings for instance in cluster.instances[:1]):
        inner = settings.kv_extra_config.get("connectors")
        entries = [entry for entry in inner if isinstance(entry, Mapping)] if isinstance(inner, list) else []
        for name in (settings.connector, *(entry.get("kv_connector") for entry in entries)):
            if isinstance(name, str) and name in scripts:
                return scripts[name]
    return next(iter(scripts.values()))


def proxy(cluster: Cluster, which: Proxy) -> dict[str, Any]:
    """The proxy on one host, as the plan holds it."""
    declaration, release = cluster.declaration, cluster.release
    name = _proxy_script(cluster)
    lines = proxy_lines(cluster, which)
    secret_path = _secret_path(cluster)
    out = [
        "#!/usr/bin/env bash",
        f"# The proxy, on {which.host}. Written by ascend.pd_rollout: change the inventory, not this file.",
        "set -euo pipefail",
        "",
    ]
    if secret_path is not None:
        out.append(f'export OPENAI_API_KEY="$(cat {SECRET_TARGET})"')
    out.extend([f"cd {release.proxy_directory}", *_command("exec python", [Line((name,)), *lines])])
    text = "\n".join(out) + "\n"
    script_path = f"{directory(cluster)}/proxy.sh"
    mounts = [mount.to_dict() for mount in _own_mounts(script_path, secret_path)]
    return {
        "container": f"{declaration.deployment}-proxy",
        "image": declaration.image,
        "host": which.address,
        "port": which.port,
        "argv": ["python", name, *(word for line in lines for word in line.words)],
        "script": text,
        "script_path": script_path,
        "command": ["bash", script_path],
        "mounts": mounts,
        "secret_path": secret_path,
        "health_url": f"http://{which.address}:{which.port}/healthcheck",
        "expected": {
            "prefill_instances": len(backends(cluster, "prefiller")),
            "decode_instances": len(backends(cluster, "decoder")),
        },
        "labels": _labels(
            cluster, "proxy", "proxy", {"image": declaration.image, "mounts": mounts, "script": text}
        ),
    }


def entry(
    cluster: Cluster, engines: list[dict[str, Any]], proxy: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What clients ask on one host: its proxy; where one engine does both, that engine at its head."""
    if proxy is not None:
        return {key: proxy[key] for key in ("container", "host", "port", "secret_path")}
    heads = [engine for engine in engines if cluster.colocated and engine["node_rank"] == 0]
    return (
        {**{key: heads[0][key] for key in ("container", "secret_path")}, **heads[0]["api"]} if heads else None
    )
