"""Generated clusters: as data for the planner, as an inventory on disk, and as simulated servers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from runs import ROOT, simulator

#: Everything generated lies here.
BUILD = ROOT / "build" / "bench"
#: Where the generated clusters have their weights.
MODEL = "/models/deepseek"
CONTEXT = {"prefiller": {"prefill_context": 2, "decode_context": 8}, "decoder": {}}


def instances(servers: int) -> dict[str, tuple[str, ...]]:
    """Two-node prefillers on two thirds of the servers, one decoder on each of the others."""
    names = [f"server{number:04}" for number in range(servers)]
    split = servers * 2 // 3 // 2 * 2
    pairs = [tuple(names[first : first + 2]) for first in range(0, split, 2)]
    return {
        **{f"prefiller{number}": pair for number, pair in enumerate(pairs)},
        **{f"decoder{number}": (name,) for number, name in enumerate(names[split:])},
    }


def address(number: int) -> str:
    return f"10.0.{number // 250}.{number % 250 + 1}"


def in_memory(servers: int, shape: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Groups and host variables, as the planner takes them."""
    made = instances(servers)
    shapes = {name: shape(hosts=hosts, all_hosts=hosts, children=()) for name, hosts in made.items()}
    variables: dict[str, dict[str, Any]] = {}
    for role in ("prefiller", "decoder"):
        children = tuple(name for name in made if name.startswith(role))
        hosts = tuple(host for child in children for host in made[child])
        shapes[role] = shape(hosts=(), all_hosts=hosts, children=children)
        for host in hosts:
            variables[host] = {
                "ansible_host": address(int(host[-4:])),
                "pd_parallel": {"tensor": 16, **CONTEXT[role]},
                **common(),
            }
    first = made["prefiller0"][:1]
    shapes["proxy"] = shape(hosts=first, all_hosts=first, children=())
    return shapes, variables


def common() -> dict[str, Any]:
    return {
        "pd_model_path": MODEL,
        "pd_served_model_name": "deepseek",
        "pd_image_registry": "registry.example",
    }


def on_disk(servers: int, name: str, hosts: dict[str, dict[str, Any]] | None = None, **more: Any) -> Path:
    """The same cluster as an inventory folder. `hosts`: further variables of single hosts; `more`: of all."""
    made = instances(servers)
    groups: dict[str, Any] = {
        role: {
            "vars": {"pd_parallel": {"tensor": 16, **CONTEXT[role]}},
            "children": {
                child: {"hosts": {host: {} for host in members}}
                for child, members in made.items()
                if child.startswith(role)
            },
        }
        for role in ("prefiller", "decoder")
    }
    given = {
        host: {"ansible_host": address(int(host[-4:])), **(hosts or {}).get(host, {})}
        for members in made.values()
        for host in members
    }
    folder = fresh(name)
    content = {
        "all": {"hosts": given, "vars": {**common(), **more}},
        **groups,
        "proxy": {"hosts": {made["prefiller0"][0]: {}}},
    }
    # JSON is YAML too.
    (folder / "hosts.yml").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def plain(name: str, servers: int, **more: Any) -> Path:
    """An inventory of servers without a role, server1 and so on."""
    folder = fresh(name)
    hosts: dict[str, object] = {f"server{number}": {} for number in range(1, servers + 1)}
    content = {"all": {"hosts": hosts, "vars": more}}
    (folder / "hosts.yml").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def demo_like(name: str, **more: Any) -> Path:
    """The demo's inventory with further variables of all hosts."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "inventory" / "simulated_1p1d", folder)
    with (folder / "group_vars" / "all.yml").open("a", encoding="utf-8") as stream:
        stream.writelines(f"{key}: {json.dumps(value)}\n" for key, value in more.items())
    return folder


def fresh(name: str) -> Path:
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Servers:
    """Simulated servers of an inventory, for the length of a `with`."""

    def __init__(self, folder: Path) -> None:
        self.name = f"bench-{folder.name}"
        self.folder = folder
        self.state = ROOT / ".sim" / self.name
        self.inventory = self.state / "inventory"

    def __enter__(self) -> Servers:
        simulator("up", "--inventory", str(self.folder), "--name", self.name)
        return self

    def __exit__(self, *_error: object) -> None:
        simulator("down", "--name", self.name)

    @property
    def addresses(self) -> dict[str, str]:
        known = json.loads((self.state / "servers.json").read_text(encoding="utf-8"))
        return {name: server["address"] for name, server in known["hosts"].items()}
