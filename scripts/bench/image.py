"""The image from a registry to all servers: bytes at the source, and what a converged run adds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

import clusters
from runs import ROOT, Run, playbook

SCENARIO = ROOT / "molecule" / "image"
SIZE = 60_000_000
COUNTS = (1, 3, 8)
#: MB/s of the uplink. Without it this machine's own limits are measured, not a chain's.
UPLINK = 10.0
#: What n servers may take against one, here where all of them load it into engines on one disk.
AIMS = {3: 1.5, 8: 2.0}
#: What TLS and manifests may add to the bytes of the image.
OVERHEAD = 1.02
ADDED_SECONDS = 2.0
#: The servers whose converged run is measured.
CONVERGED = 3
CLEAN = "docker image ls -q | sort -u | xargs -r docker image rm -f > /dev/null; rm -rf /var/lib/pd_rollout"


def measure(report: dict[str, Any]) -> None:
    """Bytes that leave the registry for 1, 3 and 8 servers; the tasks of a run with nothing to do."""
    print(f"Image ({SIZE / 1e6:g} MB, from a registry with TLS and a login, {UPLINK:g} MB/s)")
    figures: dict[str, Any] = {"bytes": SIZE, "uplink_mb_per_second": UPLINK}
    report["image"] = figures
    with clusters.Servers(cluster(max(COUNTS))) as servers:
        os.environ["MOLECULE_PROJECT_DIRECTORY"] = str(ROOT)
        playbook("-i", str(servers.inventory), str(SCENARIO / "prepare.yml"))
        shell(servers, "source", f"echo '{{\"rate\": {UPLINK * 1e6:.0f}}}' > /opt/source/gate.json")
        for count in COUNTS:
            figures[str(count)] = bring_anew(servers, count)
            if count in AIMS:
                figures[str(count)]["ratio"] = compare(figures, count)
            if count == CONVERGED:
                figures["converged"] = converged(servers, count)


def cluster(count: int) -> Path:
    """Servers, and the host of the registry, in the groups of the scenario."""
    folder = clusters.fresh("image")
    names: dict[str, object] = {f"image{number}": {} for number in range(1, count + 1)}
    groups = {"servers": {"hosts": names}, "sources": {"hosts": {"source": {}}}}
    content = {"all": {"children": groups, "vars": {"sim_weights": False}}}
    (folder / "hosts.yml").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def limit(count: int) -> str:
    return ",".join([*(f"image{number}" for number in range(1, count + 1)), "source"])


def bring_anew(servers: clusters.Servers, count: int) -> dict[str, Any]:
    """One run for servers that have nothing."""
    for number in range(1, count + 1):
        shell(servers, f"image{number}", CLEAN)
    before = passed(servers)
    run = bring(servers, count)
    copies = (passed(servers) - before) / SIZE
    took = sum(run.seconds("Wait for the image to be loaded"))
    print(
        f"  {count} server{'s' if count > 1 else ''}: {copies:.2f} times the image left the registry"
        f" (once: {'met' if copies <= OVERHEAD else 'MISSED'}); {took:.1f} s, {run.wall:.1f} s with Ansible"
    )
    return {"source_copies": copies, "seconds": took, "wall": run.wall, "returncode": run.returncode}


def compare(figures: dict[str, Any], count: int) -> float:
    """What so many servers take against one alone."""
    ratio: float = figures[str(count)]["seconds"] / figures["1"]["seconds"]
    print(
        f"    {ratio:.2f} times what one server takes"
        f" (at most {AIMS[count]:g}: {'met' if ratio <= AIMS[count] else 'MISSED'})"
    )
    return ratio


def converged(servers: clusters.Servers, count: int) -> dict[str, Any]:
    """What the image adds to a run in which there is nothing to bring."""
    runs = [bring(servers, count) for _ in range(3)]
    added = statistics.median(
        sum(run.seconds("Inspect the Docker Engine and the image"))
        + sum(run.seconds("Assign each server its source of the image"))
        for run in runs
    )
    changed = sum(run.changed for run in runs)
    print(
        f"  converged, {count} servers: {added:.2f} s"
        f" (under {ADDED_SECONDS:g}: {'met' if added < ADDED_SECONDS else 'MISSED'}), changed={changed}"
    )
    return {"added_seconds": added, "changed": changed}


def bring(servers: clusters.Servers, count: int) -> Run:
    """The role on the first servers."""
    return playbook("-i", str(servers.inventory), str(SCENARIO / "converge.yml"), "--limit", limit(count))


def passed(servers: clusters.Servers) -> int:
    """Bytes that the registry has given so far."""
    return int(shell(servers, "source", "cat /opt/source/count || echo 0"))


def shell(servers: clusters.Servers, host: str, command: str) -> str:
    """Run a command on a simulated server."""
    done = subprocess.run(
        ["ssh", "-F", str(servers.state / "ssh_config"), host, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
