"""The checks against the guides' own shell loops, on the same simulated servers in the same run."""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import clusters
from runs import Run, playbook

PLAYBOOKS = Path(__file__).parent / "playbooks"
RATIO = 12
CHECK_SECONDS = 20
CHIPS = 16
#: The guides' mesh is run as a whole up to this many seconds, and otherwise extrapolated from a part.
WHOLE_MESH_SECONDS = 180
GENERATED = (3, 48, 200)
PINGS = "Ping the chips of the other servers"

#: What the guides have the reader type on each A3 server, one line each, as it stands there.
LOOPS = """\
for i in {0..15}; do hccn_tool -i $i -lldp -g | grep Ifname; done
for i in {0..15}; do hccn_tool -i $i -link -g ; done
for i in {0..15}; do hccn_tool -i $i -net_health -g ; done
for i in {0..15}; do hccn_tool -i $i -netdetect -g ; done
for i in {0..15}; do hccn_tool -i $i -gateway -g ; done
cat /etc/hccn.conf
for i in {0..15}; do hccn_tool -i $i -ip -g | grep ipaddr; done
for i in {0..15}; do hccn_tool -i $i -vnic -g;done
for i in {0..15}; do npu-smi info -t spod-info -i $i -c 0;npu-smi info -t spod-info -i $i -c 1;done
for i in {0..15}; do hccn_tool -i $i -tls -g ; done | grep switch
"""
PING_LOOP = "for i in {{0..15}}; do hccn_tool -i $i -hccs_ping -g address {address};done\n"
#: Queries in LOOPS that a chip answers; the guides ask npu-smi for NPUs 8 to 15 too, which do not exist.
QUERIES = 9 * CHIPS


class Shell:
    """A login shell on a simulated server, over a connection that is open already, as Ansible's is."""

    def __init__(self, servers: clusters.Servers, host: str) -> None:
        self.command = [
            "ssh",
            *("-F", str(servers.state / "ssh_config")),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=600"),
            *("-o", f"ControlPath=/tmp/pd-bench-{os.getpid()}-%C"),
            host,
        ]
        self.timed("true\n")

    def timed(self, lines: str) -> float:
        """Seconds that these lines take."""
        began = time.perf_counter()
        subprocess.run(
            [*self.command, "PATH=$PATH:/usr/local/Ascend/driver/tools bash -s"],
            input=lines,
            capture_output=True,
            text=True,
            check=False,
        )
        return time.perf_counter() - began

    def close(self) -> None:
        subprocess.run([*self.command[:1], "-O", "exit", *self.command[1:]], capture_output=True, check=False)


def measure(report: dict[str, Any], query_seconds: float, ping_seconds: float) -> None:
    """All of the figures of the checks."""
    print(f"Checks (simulated tools: {1000 * query_seconds:g} ms a query, {ping_seconds:g} s a ping)")
    timing = {"timing": {"query_seconds": query_seconds, "ping_seconds": ping_seconds}}
    figures: dict[str, Any] = {"query_seconds": query_seconds, "ping_seconds": ping_seconds}
    report["checks"] = figures
    with clusters.Servers(clusters.demo_like("three", sim_server=timing)) as servers:
        shell = Shell(servers, "prefill1")
        try:
            chips = queries(figures, servers, shell)
            full_mesh(figures, servers, shell, chips, ping_seconds)
        finally:
            shell.close()
        sample = whole_check(figures, servers)
    with clusters.Servers(clusters.plain("eight", 8, sim_server=timing, sim_weights=False)) as servers:
        ring(figures, servers)
    figures["controller"] = {str(count): controller(count, sample) for count in GENERATED}


def queries(figures: dict[str, Any], servers: clusters.Servers, shell: Shell) -> dict[str, Any]:
    """One server's queries. Returns what each server's chips say."""
    run = role(servers, "queries.yml", "prefill1", count_trips=True)
    tasks = ("Ask once", "Ask again", "Ask a third time")
    ours = min(seconds for task in tasks for seconds in run.seconds(task))
    inside = min(answer["seconds"] for task in tasks for answer in run.results(task).values())
    trips = trips_of(run, "Ask again")
    loops = shell.timed(LOOPS)
    asked = next(iter(run.results("Ask once").values()))["queries"]
    figures["queries"] = {
        "loops": loops,
        "task": ours,
        "module": inside,
        "ratio": loops / inside,
        "ratio_task": loops / ours,
        "round_trips": trips,
    }
    print(f"  one server's queries, the guides' loops   {loops:7.2f} s   {QUERIES} answers of chips")
    print(f"    the module's                            {inside:7.2f} s   {asked} queries, 16 chips at once")
    print(f"    {ratio(loops / inside)}; {trips} round trip")
    print(f"    the task, with Ansible, ssh and Python  {ours:7.2f} s   {loops / ours:.1f} times faster")
    everyone = role(servers, "queries.yml", "all")
    return everyone.results("Ask once")


def full_mesh(
    figures: dict[str, Any],
    servers: clusters.Servers,
    shell: Shell,
    chips: dict[str, Any],
    ping_seconds: float,
) -> None:
    """Every chip to every chip of the other servers."""
    peers = [
        [chip["vnic"] for chip in answer["chips"]] for host, answer in chips.items() if host != "prefill1"
    ]
    addresses = [address for column in zip(*peers, strict=True) for address in column]
    whole = len(addresses) * CHIPS * ping_seconds <= WHOLE_MESH_SECONDS
    # One chip of each peer, where all of them would take too long.
    part = addresses if whole else addresses[: len(peers)]
    seconds = shell.timed("".join(PING_LOOP.format(address=address) for address in part))
    loops = seconds * len(addresses) / len(part)
    run = role(servers, "mesh.yml", "all", mesh="full", count_trips=True)
    ours = sum(sum(run.seconds(task)) for task in ("who pings whom", PINGS))
    pings = run.results(PINGS)
    failed = sum(len(answer["failed_pings"]) for answer in pings.values())
    count = sum(answer["count"] for answer in pings.values())
    trips = trips_of(run, PINGS)
    figures["full_mesh"] = {
        "loops": loops,
        "loops_measured": seconds,
        "loops_addresses": [len(part), len(addresses)],
        "task": ours,
        "ratio": loops / ours,
        "pings": count,
        "failed": failed,
        "round_trips": trips,
    }
    how = "measured"
    if not whole:
        how = f"{len(part)} of {len(addresses)} addresses measured, times {loops / seconds:g}"
    print(f"  full mesh, the guides' loop on one server {loops:7.1f} s   {how}")
    print(
        f"    ours, all {len(chips)} servers                     {ours:7.1f} s"
        f"   {count} pings, {failed} failed"
    )
    print(
        f"    {ratio(loops / ours)} than these loops on all servers at one time; {trips} round trip a server"
    )


def ring(figures: dict[str, Any], servers: clusters.Servers) -> None:
    """The same number of pings a chip, however many servers there are."""
    figures["ring"] = {}
    print("  ring, seconds of pings on each server")
    for hosts, count in (("server1:server2:server3", 3), ("all", 8)):
        pings = role(servers, "mesh.yml", hosts, mesh="ring").results(PINGS)
        times = [answer["seconds"] for answer in pings.values()]
        figures["ring"][count] = {
            "median": statistics.median(times),
            "longest": max(times),
            "pings": sum(answer["count"] for answer in pings.values()),
            "failed": sum(len(answer["failed_pings"]) for answer in pings.values()),
        }
        print(
            f"    {count} servers   {statistics.median(times):6.2f} s, longest {max(times):.2f} s"
            f"   {figures['ring'][count]['pings']} pings, {figures['ring'][count]['failed']} failed"
        )


def whole_check(figures: dict[str, Any], servers: clusters.Servers) -> dict[str, Any]:
    """`check.yml` on the three servers. Returns what a server answered to each question."""
    plan = ("-e", f"pd_plan_dir={clusters.BUILD / 'plan'}")
    command = ("-i", str(servers.inventory), "playbooks/check.yml", *plan)
    trips: Counter[str] = sum(playbook(*command, count_trips=True).trips.values(), Counter())
    run = playbook(*command)
    figures["check"] = {
        "wall": run.wall,
        "cpu": run.cpu,
        "tasks_per_host": run.tasks_per_host,
        "round_trips": max(trips.values()),
        "tasks": run.slowest(8),
    }
    print(
        f"  check.yml, three servers                  {run.wall:7.1f} s   under {CHECK_SECONDS} s:"
        f" {met(run.wall < CHECK_SECONDS)}; {run.cpu:.1f} s of controller CPU,"
        f" {max(trips.values())} round trips a server"
    )
    for name, took in run.slowest(5):
        print(f"    {took:5.1f} s  {name}")
    names = {
        "hccn": "Query the chips of each server",
        "host": "Inspect each server",
        "reached": "Connect to the ports of the other servers, and ping their chips",
        "weights": "Inspect the weights",
    }
    sample = {key: run.results(name)["prefill2"] for key, name in names.items()}
    return {**sample, "pings": sample["reached"]["pings"]}


def controller(count: int, sample: dict[str, Any]) -> dict[str, float]:
    """What it costs to take in, to judge and to report the results of so many servers."""
    inventory = clusters.on_disk(count, f"results-{count}")
    folder = clusters.fresh(f"results-{count}-answers")
    names = [host for members in clusters.instances(count).values() for host in members]
    for number, name in enumerate(names):
        answer = results_of(sample, number, names[number - 1])
        (folder / f"{name}.json").write_text(json.dumps(answer), encoding="utf-8")
    run = playbook("-i", str(inventory), str(PLAYBOOKS / "controller.yml"), "-e", f"bench_results={folder}")
    judged = sum(run.seconds("Report the findings of all checks"))
    findings = next(iter(run.results("Report the findings of all checks").values()))["findings"]
    print(
        f"  controller, results of {count:>3} servers        {run.cpu:7.1f} s of CPU"
        f" ({run.cpu / count:.3f} a server), {run.rss:.0f} MB;"
        f" judged in {judged:.2f} s, {len(findings)} findings"
    )
    return {"cpu": run.cpu, "rss_mb": run.rss, "wall": run.wall, "judge": judged, "findings": len(findings)}


def results_of(sample: dict[str, Any], number: int, neighbour: str) -> dict[str, Any]:
    """What a server answered, as the server of this number in a super pod would."""
    answer = copy.deepcopy(sample)
    for chip in answer["hccn"]["chips"]:
        own = chip["chip"]
        chip.update(
            server_index=number,
            sdid=(number << 22) + (own << 18),
            vnic=f"192.168.{number}.{own + 1}",
            ip=f"11.12.{number}.{own + 1}",
        )
    answer["reached"]["clocks"] = {neighbour: [0.0, 0.0]}
    return answer


def role(
    servers: clusters.Servers, name: str, hosts: str, mesh: str = "ring", count_trips: bool = False
) -> Run:
    """Run one of the playbooks of this folder on some servers."""
    variables = {"bench_hosts": hosts, "bench_mesh": mesh}
    return playbook(
        "-i",
        str(servers.inventory),
        str(PLAYBOOKS / name),
        "-e",
        json.dumps(variables),
        count_trips=count_trips,
    )


def trips_of(run: Run, task: str) -> int:
    """The most commands that the task ran on one server."""
    return max((max(hosts.values()) for name, hosts in run.trips.items() if name.endswith(task)), default=0)


def ratio(figure: float) -> str:
    return f"{figure:.1f} times faster (at least {RATIO}: {met(figure >= RATIO)})"


def met(good: bool) -> str:
    return "met" if good else "MISSED"
