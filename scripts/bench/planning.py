"""Planning: in memory, as the whole playbook, and the check mode of a deployment of many hosts."""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from typing import Any

import clusters
from runs import ROOT, playbook

#: Servers of the generated clusters that are planned in memory, and by the playbook.
PLANNED = (3, 100, 1000)
PLAYBOOK_SERVERS = 200


def measure(report: dict[str, Any]) -> None:
    """From host variables to a plan in memory, and `plan.yml` with all that it reads and writes."""
    print("Planning, host variables to a plan in memory")
    sys.path.insert(0, str(ROOT))
    from plugins.plugin_utils.rollout import inventory, plan

    figures: dict[str, Any] = {"memory": {}, "seconds": {}}
    for servers in PLANNED:
        times = []
        for _ in range(3):
            shapes, variables = clusters.in_memory(servers, inventory.GroupShape)
            began = time.perf_counter()
            plan.make(inventory.raw_inventory("generated", shapes, variables)).to_dict()
            times.append(time.perf_counter() - began)
        # Not in the same run: counting memory makes it slower.
        tracemalloc.start()
        kept = plan.make(inventory.raw_inventory("generated", shapes, variables)).to_dict()
        used, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del kept
        seconds = statistics.median(times)
        figures["seconds"][servers] = seconds
        figures["memory"][servers] = {"kept": used, "peak": peak}
        print(
            f"  {servers:>5} servers  {seconds:7.3f} s   {1000 * seconds / servers:6.3f} ms a server,"
            f"   {peak / servers / 1024:6.1f} KB a server at most, {used / servers / 1024:.1f} KB kept"
        )
    folder = clusters.on_disk(PLAYBOOK_SERVERS, f"plan-{PLAYBOOK_SERVERS}")
    output = clusters.fresh(f"plan-{PLAYBOOK_SERVERS}-files")
    for name in ("written", "unchanged"):
        run = playbook("-i", str(folder), "playbooks/plan.yml", "-e", f"pd_plan_dir={output}")
        figures[f"playbook_{name}"] = {"wall": run.wall, "cpu": run.cpu, "rss_mb": run.rss}
        print(
            f"  plan.yml for {PLAYBOOK_SERVERS} servers, {name:<9}  {run.wall:5.1f} s"
            f"   {run.cpu:.1f} s of CPU, {run.rss:.0f} MB"
        )
    report["planning"] = figures
