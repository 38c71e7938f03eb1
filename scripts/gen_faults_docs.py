# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/faults.md from the table that the scenario `faults` tests. With --check: only say whether it is
current."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from doc_generator import ROOT, main

from plugins.plugin_utils._checks.catalogue import CHECKS

TABLE = ROOT / "molecule" / "faults" / "faults.yml"
ORDER = (
    "Access",
    "NPUs, driver, devices",
    "Each chip",
    "Between servers",
    "hccn.conf",
    "Tools",
    "Ports",
    "Network of the servers",
    "Docker, disk, memory",
    "Kernel",
    "Weights",
)
# An answer that is not there weighs as much as the state that it hides.
WEIGHED = frozenset({"hccn-query-failed", "hccn-answer-unreadable", "hccn-tool-hangs"})
COLUMNS = "| fault | injected by | the engines show | when | we show |\n|---|---|---|---|---|\n"
HEAD = """\
# Faults

Made by `scripts/gen_faults_docs.py` from `molecule/faults/faults.yml`; change it there.

What goes wrong with servers like these, how and when the engines show it, and what `playbooks/check.yml`
reports. The scenario `faults` injects each of these {rows} faults into simulated servers and verifies that
exactly the findings of this table are reported, at their places, and none after the cure.

**When we show it:** always in the check, seconds after its start and before anything on a server is changed;
`deploy.yml` begins with it. One run reports all faults of all servers.

**What the engines show** applies to a launch by hand, as in the guide. Times are those of a model of 671
billion parameters: loading takes 5–9 minutes, and a group that does not form gives up after
`HCCL_CONNECT_TIMEOUT`, 2 minutes.

To reproduce one, make servers with `simulator/sim up --inventory inventory/simulated_1p1d`, inject it and
run the check. The codes link to the cures ([checks](checks.md)). The severity is the one in a super pod.
"""


def rows() -> list[dict[str, Any]]:
    """Every row of the table, with a list of servers."""
    runs = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [
        {**row, "at": row["at"] if isinstance(row["at"], list) else [row["at"]]}
        for run in runs
        for row in run["rows"]
    ]


def value(one: Any) -> str:
    """A parameter as `sim fault` takes it."""
    if isinstance(one, str):
        # The address of a server, which only a run knows.
        one = re.sub(r"\{\{ ((?:prefill|decode)\d) \}\}", r"ADDRESS_OF_\1", one)
        return f"'{one}'" if " " in one else one
    return json.dumps(one, separators=(",", ":"))


def injected(row: dict[str, Any]) -> Iterator[str]:
    """How the fault gets there."""
    if row.get("down"):
        yield f"`sim stop {row['at'][0]}`"
    for name, parameters in (row.get("do") or {}).items():
        words = " ".join(f"{key}={value(one)}" for key, one in (parameters or {}).items())
        for host in row["at"]:
            yield f"`sim fault {host} {name}{' ' + words if words else ''}`"
    for name, one in (row.get("set") or {}).items():
        yield f"in the inventory `{name}: {value(one)}`"
    for name, one in (row.get("vars") or {}).items():
        yield f"`-e {name}={value(one)}`"


def shown(row: dict[str, Any]) -> Iterator[str]:
    """The findings, each once, with severity and link."""
    for code in dict.fromkeys(text.partition("@")[0] for text in row["finds"]):
        severity = CHECKS[code].severity_over("hccs")
        # What deployment brings is no error yet.
        brought = code.startswith("weights") and "pd_weights_source" in (row.get("vars") or {})
        if code in row.get("warns", ()) or brought:
            severity = "warning"
        yield f"[`{code}`](checks.md#{code}) {'by query' if code in WEIGHED else severity}"


def cell(text: str) -> str:
    """A text inside a table."""
    return text.replace("|", "\\|")


def page() -> str:
    """The page."""
    every = rows()
    text = HEAD.format(rows=len(every))
    for title in ORDER:
        text += f"\n## {title}\n\n{COLUMNS}"
        for row in every:
            if row["about"] == title:
                cells = (
                    row["fault"],
                    "<br>".join(injected(row)),
                    row["upstream"],
                    row["when"],
                    "<br>".join(shown(row)),
                )
                text += f"| {' | '.join(map(cell, cells))} |\n"
    return text


def documents() -> dict[str, str]:
    return {"docs/faults.md": page()}


if __name__ == "__main__":
    sys.exit(main(documents))
