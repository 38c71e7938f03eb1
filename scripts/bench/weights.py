"""The weights from one server to all others, beside one plain copy between two of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import clusters
from runs import ROOT, Run, playbook

MAKE_WEIGHTS = ROOT / "molecule" / "weights_fan_out" / "files" / "make_weights.py"
PLAYBOOK = Path(__file__).parent / "playbooks" / "weights.yml"
MODEL = "/srv/models/deepseek"
SHARDS, SHARD_BYTES = 40, 4_000_000
#: Servers, and the ratio to a plain copy that is aimed at here, where all share one disk and two cores.
AIMS = {3: 1.5, 8: 2.0}
#: MB/s of a link: what a NIC is at a site. Without it this machine's own limits are measured, not a chain's.
LINK = 10.0
#: What Ansible and packets may add to the bytes of the weights.
OVERHEAD = 1.2
ADDED_SECONDS = 2.0


def measure(report: dict[str, Any]) -> None:
    """Ratios, bytes at the source, and what a converged run takes."""
    total = SHARDS * SHARD_BYTES
    print(f"Weights ({SHARDS} shards of {SHARD_BYTES / 1e6:g} MB)")
    figures: dict[str, Any] = {"bytes": total, "link_mb_per_second": LINK}
    report["weights"] = figures
    for count, aim in AIMS.items():
        folder = clusters.plain(f"weights{count}", count, sim_weights=False, pd_chips_per_node=1)
        with clusters.Servers(folder) as servers:
            make(servers)
            names = list(servers.addresses)
            if count == min(AIMS):
                # One that lacks them, beside the one that has them.
                figures["1"] = {"unlimited": fan_out(servers, names[:2], aim, 0.0)}
            figures[str(count)] = {
                "limited": fan_out(servers, names, aim, LINK),
                "unlimited": fan_out(servers, names, aim, 0.0),
            }
            if count == min(AIMS):
                converged(figures, servers)


def make(servers: clusters.Servers) -> None:
    """Weights on the first server."""
    arguments = f"{MODEL} {SHARDS} {SHARD_BYTES}"
    shell(servers, "server1", f"python3 - {arguments}", MAKE_WEIGHTS.read_text(encoding="utf-8"))


def fan_out(servers: clusters.Servers, names: list[str], aim: float, link: float) -> dict[str, Any]:
    """One plain copy from the first to the second server, then all of these by the role."""
    plain = plain_copy(servers, link)
    for name in names[1:]:
        shell(servers, name, "rm -rf /srv/models")
    before = sent(servers)
    run = bring(servers, link, names)
    source = sent(servers) - before
    answers = run.results("Wait for the weights")
    took = max(answer["seconds"] for answer in answers.values())
    task = sum(run.seconds("Start to serve and copy the weights")) + sum(run.seconds("Wait for the weights"))
    ratio, copies = took / plain, source / (SHARDS * SHARD_BYTES)
    # Without a limit all copies share one disk and two cores, and n of them cannot cost what one does.
    verdict = f" (at most {aim}: {'met' if ratio <= aim else 'MISSED'})" if link else ""
    limit = f"{link:g} MB/s a link" if link else "no limit"
    print(
        f"  {_count(names):<10} {limit:<15} plain copy {plain:6.1f} s,"
        f" fan-out {took:6.1f} s: {ratio:.2f} times{verdict}"
    )
    print(
        f"    bytes at the source {copies:.2f} times the weights"
        f" (once: {'met' if copies <= OVERHEAD else 'MISSED'}); {run.wall:.1f} s with Ansible"
    )
    return {
        "plain": plain,
        "fan_out": took,
        "tasks": task,
        "ratio": ratio,
        "source_copies": copies,
        "wall": run.wall,
        "returncode": run.returncode,
    }


def plain_copy(servers: clusters.Servers, link: float) -> float:
    """Seconds that rsync takes from the first server to the second, by its daemon, without us."""
    config = "use chroot = no\\n[w]\\npath = /srv/models\\n"
    shell(
        servers,
        "server1",
        f"printf '{config}' > /tmp/plain.conf; rsync --daemon --port=8731 --config=/tmp/plain.conf",
    )
    limit = f"--bwlimit={round(link * 1e6 / 1024)}" if link else ""
    copy = f"rm -rf /srv/plain; rsync -a {limit} rsync://{servers.addresses['server1']}:8731/w/ /srv/plain/"
    began = time.perf_counter()
    shell(servers, "server2", copy)
    seconds = time.perf_counter() - began
    shell(servers, "server2", "rm -rf /srv/plain")
    shell(servers, "server1", "pkill -x rsync")
    return seconds


def converged(figures: dict[str, Any], servers: clusters.Servers) -> None:
    """What the role adds to a run in which there is nothing to bring."""
    runs = [bring(servers, 0.0, list(servers.addresses)) for _ in range(3)]
    added = statistics.median(
        sum(run.seconds("Inspect the weights and set the dtype in config.json"))
        + sum(run.seconds("Determine which servers need the weights"))
        for run in runs
    )
    figures["converged"] = {
        "added_seconds": added,
        "tasks_per_host": max(run.tasks_per_host for run in runs),
        "changed": sum(run.changed for run in runs),
    }
    print(
        f"  converged, {len(servers.addresses)} servers: {added:.2f} s"
        f" (under {ADDED_SECONDS:g}: {'met' if added < ADDED_SECONDS else 'MISSED'}),"
        f" {figures['converged']['tasks_per_host']} tasks a server, changed={figures['converged']['changed']}"
    )


def _count(names: list[str]) -> str:
    return f"{len(names)} servers," if len(names) > 2 else "1 server,"


def bring(servers: clusters.Servers, link: float, names: list[str]) -> Run:
    """The role on these servers."""
    variables = {"model_weights_path": MODEL, "model_weights_bandwidth": link}
    options = ["--forks", str(len(names)), "--limit", ",".join(names), "-e", json.dumps(variables)]
    return playbook("-i", str(servers.inventory), str(PLAYBOOK), *options)


def sent(servers: clusters.Servers) -> int:
    """Bytes that the first server has sent since it was made."""
    return int(shell(servers, "server1", "cat /sys/class/net/eth0/statistics/tx_bytes"))


def shell(servers: clusters.Servers, host: str, command: str, data: str = "") -> str:
    """Run a command on a simulated server."""
    done = subprocess.run(
        ["ssh", "-F", str(servers.state / "ssh_config"), host, command],
        input=data,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
