"""What can go wrong on a simulated server: the list, and how it is switched on and off.

All faults live in one flat namespace, the server's faults.json. Those that change something on the server's
disk or network are carried out there (server/rootfs/opt/pd-sim/server_faults.py). The tools and the engine
read theirs from faults.json; `tools/render.py --faults` and `engine/faults.json` list them.
"""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from pdsim.cluster import find, listed
from pdsim.docker import docker
from pdsim.layout import LABEL_HOST, LABEL_NAME, SIMULATOR
from pdsim.server import OVERLAY, TOOLS
from pdsim.ui import SimError, colour, say

EXAMPLE = "{prefill1: {link_down: {chips: [3]}}}"
SCRIPT = "/opt/pd-sim/server_faults.py"
ENGINE_TABLE = SIMULATOR / "engine" / "faults.json"


def table() -> dict[str, dict[str, tuple[str, str]]]:
    """Every fault with its parameters and what it shows, by the part of the server that it concerns."""
    server = printed(OVERLAY / SCRIPT.lstrip("/"), "list")
    tools = printed(TOOLS / "render.py", "--faults")
    engine = json.loads(ENGINE_TABLE.read_text()) if ENGINE_TABLE.exists() else {}
    return {"Server": server, "hccn_tool and npu-smi": tools, "Engine": engine}


def printed(script: Any, argument: str) -> dict[str, tuple[str, str]]:
    """The table that a script prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-B", str(script), argument], capture_output=True, check=True, text=True
    )
    found: dict[str, tuple[str, str]] = json.loads(done.stdout)
    return found


def show() -> None:
    """Print the list."""
    for part, faults in table().items():
        say(colour("1", part))
        for name, (parameters, summary) in faults.items():
            say(f"  {name:<24}{summary}" + (f"  ({parameters})" if parameters else ""))
    say("\nUse: sim fault HOST FAULT [key=value …], sim heal HOST [FAULT]. Values are JSON: chips=[3,4]")


def parse(parameters: list[str]) -> dict[str, Any]:
    """`key=value` words; a value is JSON or else a text."""
    found = {}
    for word in parameters:
        key, sign, text = word.partition("=")
        if not sign:
            raise SimError(f"parameter {word}: write it as key=value.")
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError:
            found[key] = text
    return found


def need(fault: str, known: list[str]) -> None:
    """Refuse what is no fault, with the nearest one."""
    if fault not in known:
        close = difflib.get_close_matches(fault, known, n=1)
        raise SimError(
            f"no fault {fault}; " + (f"did you mean {close[0]}?" if close else "see `sim faults`.")
        )


def known_faults() -> list[str]:
    """The names of all faults."""
    return [one for faults in table().values() for one in faults]


def inject(name: str | None, host: str, fault: str, parameters: list[str]) -> None:
    """Switch a fault on."""
    need(fault, known_faults())
    on_server(name, host, "apply", fault, json.dumps(parse(parameters)))


def heal(name: str | None, host: str, fault: str | None) -> None:
    """Switch a fault off, or all of them."""
    on_server(name, host, "heal", *([fault] if fault else []))


def rehearse(name: str | None, source: Path) -> None:
    """Exactly the faults of a file, host by host, on the servers of one cluster; all others end."""
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
        wanted = yaml.safe_load(text) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SimError(f"{source} cannot be read: {error}") from error
    if not isinstance(wanted, dict) or not all(isinstance(one or {}, dict) for one in wanted.values()):
        raise SimError(f"{source}: write host, below it fault, below it parameters: {EXAMPLE}")
    clusters = {one["Config"]["Labels"][LABEL_NAME] for one in listed(name)}
    if len(clusters) != 1:
        raise SimError(f"say which cluster with --name (there are: {', '.join(sorted(clusters)) or 'none'}).")
    running = {
        one["Config"]["Labels"][LABEL_HOST]: one["Name"].lstrip("/")
        for one in listed(clusters.pop())
        if one["State"]["Running"]
    }
    known = known_faults()
    for host, several in wanted.items():
        if host not in running:
            raise SimError(f"there is no running server {host} (there are: {', '.join(running)}).")
        for fault in several or {}:
            need(fault, known)

    def one_server(host: str) -> str:
        exact = {fault: parameters or {} for fault, parameters in (wanted.get(host) or {}).items()}
        return docker("exec", running[host], "python3", SCRIPT, "exactly", json.dumps(exact))

    with ThreadPoolExecutor(len(running)) as pool:
        for host, said in zip(running, pool.map(one_server, running), strict=True):
            say(f"  {host}: {said}")


def on_server(name: str | None, host: str, *arguments: str) -> None:
    """Let the server do it."""
    one = find(name, host)
    if not one["State"]["Running"]:
        raise SimError(f"server {host} is off; `sim start {host}` switches it on.")
    said = docker("exec", one["Name"].lstrip("/"), "python3", SCRIPT, *arguments)
    say(f"  {one['Config']['Labels'][LABEL_NAME]}/{host}: {said}")
