#!/usr/bin/env python3
"""Measure the rollout on simulated servers: `make bench`.

Figures are printed and written to build/bench.json; nothing here is asserted. Machines are noisy, so what
counts are ratios within one run. Units: seconds of wall clock unless it says CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import changing
import checks
import deploying
import fronting
import guarding
import image
import planning
import weights
from runs import ROOT

PARTS: dict[str, Callable[[dict[str, Any], argparse.Namespace], None]] = {
    "planning": lambda report, _given: planning.measure(report),
    "steps": lambda report, _given: changing.measure(report),
    "checks": lambda report, given: checks.measure(report, given.query_seconds, given.ping_seconds),
    "deploy": lambda report, _given: deploying.measure_deploy(report),
    "names": lambda report, _given: deploying.measure_names(report),
    "image": lambda report, _given: image.measure(report),
    "weights": lambda report, _given: weights.measure(report),
    "front": lambda report, _given: fronting.measure(report),
    "guard": lambda report, _given: guarding.measure(report),
    "demo": lambda report, _given: deploying.measure_demo(report),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help=f"what to measure: {', '.join(PARTS)}; everything when left out",
    )
    parser.add_argument("--query-seconds", type=float, default=0.05, help="latency of the tools' queries")
    parser.add_argument("--ping-seconds", type=float, default=1.0, help="latency of their pings")
    given = parser.parse_args()
    report: dict[str, Any] = {}
    for part in given.parts or PARTS:
        PARTS[part](report, given)
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    # Parts that were not measured this time keep their last figures.
    before = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    target.write_text(json.dumps({**before, **report}, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
