"""The rollout on simulated servers: a first run, a converged one, many hosts in check mode, and the demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import clusters
from runs import ROOT, playbook, simulator

INVENTORY = "inventory/simulated_1p1d"
#: Names of the one server that is deployed to in check mode.
NAMES = (3, 48)
#: Hosts at once: all of them run on the one server, whose two cores are this machine's own.
FORKS = 6


def measure_deploy(report: dict[str, Any]) -> None:
    """A first deployment on fresh servers, then the same command again."""
    print("Deployment on three simulated servers")
    simulator("up", "--inventory", INVENTORY)
    playbook("-i", INVENTORY, "playbooks/stop.yml")
    first = playbook("-i", INVENTORY, "playbooks/deploy_1p1d.yml")
    again = playbook("-i", INVENTORY, "playbooks/deploy_1p1d.yml")
    start_up = first.engines_start_up()
    overhead = first.wall - start_up
    report["deploy"] = {
        "wall": first.wall,
        "engines_start_up": start_up,
        "overhead": overhead,
        "converged_wall": again.wall,
        "converged_cpu": again.cpu,
        "converged_tasks_per_host": again.tasks_per_host,
        "converged_changed": again.changed,
    }
    print(
        f"  first run        {first.wall:6.1f} s, engines start {start_up:.1f} s: overhead {overhead:.1f} s"
    )
    print(f"  converged re-run {again.wall:6.1f} s, {again.cpu:.1f} s of controller CPU,")
    print(f"                   {again.tasks_per_host} tasks a host, changed={again.changed}")
    for name, took in again.slowest(6):
        print(f"    {took:5.1f} s  {name}")


def measure_names(report: dict[str, Any]) -> None:
    """`deploy.yml --check` for many hosts: one simulated server that is addressed by many names."""
    print("deploy.yml --check, one simulated server with many addresses")
    report["names"] = {}
    variables = {
        "pd_image": "ascend/vllm-ascend:v0.13.0-a3",
        "pd_image_source": "archive",
        "pd_image_archive": "/opt/pd-sim/images/vllm-ascend.tar",
        # The one server has each chip under many names: what is found is not measured here.
        "hccn_check_mesh": "none",
        "check_report_fail": False,
    }
    source = clusters.plain("names", 1, pd_model_path=clusters.MODEL)
    with clusters.Servers(source) as servers:
        addresses = more_addresses(servers, max(NAMES))
        reach = reached_by(servers)
        for count in NAMES:
            names = [host for members in clusters.instances(count).values() for host in members]
            hosts = {name: {"ansible_host": addresses[number]} for number, name in enumerate(names)}
            inventory = clusters.on_disk(count, f"names-{count}", hosts, **variables, **reach)
            plan_dir = clusters.BUILD / "plan"
            run = playbook(
                *("-i", str(inventory), "playbooks/deploy.yml", "--check", "--forks", str(FORKS)),
                *("-e", f"pd_plan_dir={plan_dir}"),
            )
            report["names"][count] = {
                "wall": run.wall,
                "cpu": run.cpu,
                "cpu_per_host": run.cpu / count,
                "rss_mb": run.rss,
                "tasks_per_host": run.tasks_per_host,
                "returncode": run.returncode,
            }
            print(
                f"  {count:>3} hosts  {run.wall:6.1f} s   {run.cpu:6.1f} s of controller CPU,"
                f" {run.cpu / count:.2f} a host   {run.tasks_per_host} tasks a host, {run.rss:.0f} MB"
            )
    few, many = (report["names"][count]["cpu_per_host"] for count in NAMES)
    print(f"    a host costs {many / few:.2f} times what it costs among {NAMES[0]} (no more than 1)")


def more_addresses(servers: clusters.Servers, count: int) -> list[str]:
    """Give the one server further addresses in its network."""
    own = servers.addresses["server1"]
    network = own.rsplit(".", 1)[0]
    made = [f"{network}.{number}" for number in range(100, 100 + count)]
    lines = "".join(f"ip address replace {address}/24 dev eth0\n" for address in made)
    subprocess.run(
        ["ssh", "-F", str(servers.state / "ssh_config"), "server1", "sh -e"],
        input=lines,
        text=True,
        check=True,
    )
    return made


def reached_by(servers: clusters.Servers) -> dict[str, Any]:
    """How Ansible reaches the server, whatever its address."""
    files = servers.state
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(files / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={files / 'known_hosts'}"
        f" -o StrictHostKeyChecking=yes -o HostKeyAlias={servers.addresses['server1']}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def measure_demo(report: dict[str, Any]) -> None:
    """`make demo` from a fresh clone with nothing cached, then again."""
    print("make demo, from a fresh clone")
    folder = Path(tempfile.mkdtemp(prefix="pd-bench-"))
    clone = folder / "checkout"
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PD_SIM_SALT": folder.name}
    try:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for name in ("cold", "warm"):
            began = time.perf_counter()
            done = in_clone(clone, environment, "make", "demo")
            took = time.perf_counter() - began
            report[f"demo_{name}"] = {"wall": took, "returncode": done.returncode, "stages": {}}
            if done.returncode:
                print(f"  {name}: failed after {took:.1f} s")
                print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
                break
            stages = json.loads((clone / ".sim" / "demo-stages.json").read_text(encoding="utf-8"))
            report[f"demo_{name}"]["stages"] = stages
            print(
                f"  {name}  {took:6.1f} s   "
                + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
            )
    finally:
        in_clone(clone, environment, "make", "demo-down")
        # Only the images of this salt: those of other checkouts stay.
        names = in_clone(
            clone, environment, sys.executable, "simulator/sim", "images", "--names"
        ).stdout.split()
        subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def in_clone(folder: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the fresh clone, silently."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
