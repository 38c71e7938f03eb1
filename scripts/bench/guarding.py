"""Engines that fail under load, what a change of one costs, and what the guard needs at rest."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import clusters
import yaml
from runs import BIN, ROOT, Run, playbook

sys.path.insert(0, str(ROOT / "molecule" / "front" / "tests"))

from load import Front, Load

SOURCE = ROOT / "molecule" / "front" / "inventory"
KEY = "sk-alice-of-this-test-0123456789"
#: As other parts have it: the image from an archive on each server, the packages on its disk.
BENCH = {
    "pd_image_source": "archive",
    "pd_image_archive": "/opt/pd-sim/images/vllm-ascend.tar",
    "sim_packages": ["haproxy"],
}
#: Turns of the figures of a death, seconds of rest, seconds at most for anything to happen.
TURNS, REST, LATEST = 3, 30.0, 240.0
#: Eight clients with this pause send about 20 requests a second.
CLIENTS, PAUSE = 8, 0.35
ENGINE, SERVER = "decode_a", "server1"


class Cluster:
    """Two prefillers and two decoders on two simulated servers, with a front on each."""

    def __init__(self, servers: clusters.Servers) -> None:
        self.servers = servers
        self.front = Front(
            list(servers.addresses.values()),
            8443,
            "models.example",
            str(servers.state / "certificates" / "ca.pem"),
            KEY,
            "deepseek_v3",
        )

    def run(self, server: str, command: str) -> str:
        words = ["ssh", "-F", str(self.servers.state / "ssh_config"), server, command]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def deploy(self, *words: str) -> Run:
        done = playbook("-i", str(self.servers.inventory), "playbooks/deploy.yml", *words)
        if done.returncode:
            raise SystemExit("the cluster could not be deployed")
        return done

    def status(self, server: str) -> dict[str, Any]:
        said = self.run(server, "pd-guard status --json")
        found: dict[str, Any] = json.loads(said)[0] if said else {}
        return found

    def events(self, begin: float) -> list[tuple[float, str]]:
        """What the guards have noted since: seconds, and what."""
        return [
            (event["at"] - begin, event["what"])
            for server in self.servers.addresses
            for event in self.status(server).get("events", ())
            if event["at"] >= begin
        ]

    def when(self, begin: float, what: str) -> list[float]:
        return [after for after, said in self.events(begin) if re.match(what, said)]

    def wait(self, begin: float, what: str, times: int) -> float:
        """After how many seconds the last of so many guards has noted something."""
        while len(found := self.when(begin, what)) < times:
            if time.time() > begin + LATEST:
                raise SystemExit(f"{what!r} does not happen: {self.events(begin)}")
            time.sleep(0.2)
        return max(found)


def inventory() -> Path:
    """The cluster of scenario front."""
    folder = clusters.fresh("guard")
    subprocess.run(["cp", "-r", f"{SOURCE}/.", str(folder)], check=True)
    path = folder / "group_vars" / "all.yml"
    values = {**yaml.safe_load(path.read_text(encoding="utf-8")), **BENCH}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return folder


def measure(report: dict[str, Any]) -> None:
    print("Guard: an engine is killed under load, and what the guard needs at rest")
    with clusters.Servers(inventory()) as servers:
        made = ROOT / "molecule" / "front" / "files" / "certificates.py"
        subprocess.run([str(BIN / "python"), str(made), str(servers.state / "certificates")], check=True)
        cluster = Cluster(servers)
        cluster.deploy("-e", "guard_canary_seconds=60")
        figures = {
            "death": [death(cluster) for _ in range(TURNS)],
            "rest": {server: rest(cluster, server) for server in servers.addresses},
            "roll": roll(cluster),
        }
    show(figures)
    report["guard"] = figures


def death(cluster: Cluster) -> dict[str, float]:
    """kill -9 of a decoder: seconds until the last request that fails was sent, until it is out of both
    lists, and until both have it again; and those of its own start."""
    kill = f"kill -9 $(docker inspect --format {{{{.State.Pid}}}} pd-{ENGINE})"
    with Load(cluster.front, CLIENTS, pause=PAUSE) as load:
        load.answered(4 * CLIENTS)
        begin = time.time()
        cluster.run(SERVER, kill)
        out = cluster.wait(begin, f"{ENGINE} is out of the list", 2)
        back = cluster.wait(begin, f"{ENGINE} is in the list again", 2)
        load.answered(4 * CLIENTS)
    started = cluster.wait(begin, f"pd-{ENGINE} is started", 1)
    return {
        "last": max((sent - begin for sent in load.result.sent), default=0.0),
        "lost": float(len(load.result.sent)),
        "out": out,
        "back": back,
        "start": own_start(cluster),
        "began": started,
    }


def own_start(cluster: Cluster) -> float:
    """Seconds from the start of the engine's container to the line that says that it serves."""
    said = cluster.run(SERVER, f"docker inspect --format '{{{{.State.StartedAt}}}}' pd-{ENGINE}").strip()
    lines = cluster.run(SERVER, f"docker logs --timestamps --since {said} pd-{ENGINE} 2>&1").splitlines()
    ready = next(line.split()[0] for line in lines if "Application startup complete" in line)
    return seconds(ready) - seconds(said)


def seconds(stamp: str) -> float:
    """A time such as 2026-01-02T03:04:05.678901234Z, as seconds since its midnight."""
    hours, minutes, rest_ = stamp.rstrip("Z").partition("T")[2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest_)


def rest(cluster: Cluster, server: str) -> dict[str, float]:
    """The guard's share of a core, with its canaries, and its memory in MB, while nothing happens."""

    main = "/proc/$(systemctl show -p MainPID --value pd-guard)"

    def used() -> float:
        # Of itself, and of its canaries that have ended (proc(5)): hundredths of a second.
        fields = cluster.run(server, f"cat {main}/stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / 100

    before, begin = used(), time.monotonic()
    time.sleep(REST)
    share = (used() - before) / (time.monotonic() - begin)
    pid = f"{main}/status"
    kilobytes = cluster.run(server, f"grep VmRSS {pid}").split()[1]
    return {"share": share, "megabytes": int(kilobytes) / 1024}


def roll(cluster: Cluster) -> dict[str, float]:
    """What a roll of all four engines takes, and a run without a change; and the engine's own start."""
    converged = cluster.deploy("--skip-tags", "check").wall
    changed = cluster.deploy("--skip-tags", "check", "-e", "pd_shm_size=9g")
    return {"converged": converged, "wall": changed.wall, "start": own_start(cluster)}


def show(figures: dict[str, Any]) -> None:
    deaths = figures["death"]
    for what, text in (
        ("last", "from the death to the last request that was lost"),
        ("out", "until it is out of both lists"),
    ):
        print(f"  {text}: {statistics.median(one[what] for one in deaths):.1f} s")
    full = statistics.median(one["back"] - one["start"] for one in deaths)
    print(f"  to full capacity, without the engine's own start: {full:.1f} s")
    for server, one in figures["rest"].items():
        print(f"  at rest on {server}: {one['share']:.2%} of a core, {one['megabytes']:.0f} MB")
    changed = figures["roll"]
    each = (changed["wall"] - changed["converged"] - 2 * changed["start"]) / 4
    print(f"  a roll of four engines: {each:.1f} s an engine beside its start")
