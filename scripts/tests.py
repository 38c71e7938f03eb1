#!/usr/bin/env python3
"""Run test suites, all to their end, and count: `tests.py lint unit molecule`, `tests.py --counts`.

What pytest reports (Molecule's verifier is pytest too) goes to build/test-results/*.xml. A suite that fails
without a failed test (a linter, a scenario that does not converge) counts as one failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ui import colour, say

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
SIM = ROOT / "simulator" / "sim"
RESULTS = ROOT / "build" / "test-results"
# Scenarios at a time.
AT_ONCE = 2
LONGEST = ("rollout", "image", "weights_fan_out")


@dataclass(frozen=True)
class Counts:
    """Tests of a suite, by how they ended."""

    passed: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed)


def counts(path: Path) -> Counts:
    """What a report of pytest says."""
    if not path.exists():
        return Counts()
    total = Counts()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        passed = int(suite.get("tests", 0)) - failed - int(suite.get("skipped", 0))
        total += Counts(passed, failed)
    return total


def failures(path: Path) -> list[str]:
    """The failed tests of a report: suite, test, and what was wrong."""
    return [
        "\n    ".join(
            [f"{path.stem}: {case.get('classname') or ''}::{case.get('name')}", *beginning(problem)]
        )
        for case in ElementTree.parse(path).getroot().iter("testcase")
        for problem in (*case.iter("failure"), *case.iter("error"))
    ]


def beginning(problem: ElementTree.Element) -> list[str]:
    """What a failure says, short enough for a list."""
    told = [line for line in (problem.text or "").splitlines() if line.startswith("E ")]
    told = told or (problem.get("message") or "").splitlines()
    # A play's whole output may stand there: what went wrong comes late in it.
    telling = [line for line in told if re.search(r"ERROR|fatal:|Error: \S|^E +assert ", line)]
    return [line[:300] for line in (telling or told)[:6]]


def all_counts(name: str) -> Counts:
    """What the reports of a suite say: it may have written several, NAME.….xml."""
    return sum((counts(path) for path in RESULTS.glob(f"{name}.*xml")), Counts())


def run(name: str, *command: str | Path, log: Path | None = None) -> bool:
    """Run one suite; True if all is well. What it prints goes to `log`, and is shown if it fails."""
    report = RESULTS / f"{name}.xml"
    for earlier in RESULTS.glob(f"{name}.*xml"):
        earlier.unlink()
    if log is None:
        say(colour("1;36", f"\n── {name} ") + colour("36", "─" * max(3, 76 - len(name))))
    else:
        say(f"{name} …")
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    environment["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}".strip()
    begun = time.monotonic()
    with log.open("wb") if log else contextlib.nullcontext() as output:
        code = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            check=False,
        ).returncode
    if code and all_counts(name).failed == 0:
        record_failure(report, name, code)
    found = all_counts(name)
    verdict = colour("31", "failed") if code else colour("32", "passed")
    told = f"{log.read_text(errors='replace')}\n" if log and code else ""
    took = time.monotonic() - begun
    say(f"{told}{name}: {verdict}, {found.passed} passed, {found.failed} failed ({took:.0f} s)")
    return code == 0


def record_failure(report: Path, name: str, code: int) -> None:
    """A report for what failed without a test of its own."""
    suite = ElementTree.Element("testsuite", name=name, tests="1", failures="1", errors="0", skipped="0")
    case = ElementTree.SubElement(suite, "testcase", name=name)
    ElementTree.SubElement(case, "failure", message=f"exit {code}")
    ElementTree.ElementTree(suite).write(report)


def lint() -> bool:
    """The linters."""
    return run("lint", ROOT / "scripts" / "lint")


def unit() -> bool:
    """Everything that needs no server."""
    folders = [
        folder for folder in ("unit", "simulator", "integration") if (ROOT / "tests" / folder).is_dir()
    ]
    # A file's tests stay together: what they share is made once.
    workers = ("--numprocesses", "auto", "--dist", "loadfile")
    return run("unit", BIN / "pytest", "--quiet", *workers, *(f"tests/{folder}" for folder in folders))


def conformance() -> bool:
    """Against the real parser of vLLM."""
    return run("conformance", BIN / "python", ROOT / "scripts" / "conformance.py")


def scenarios() -> list[str]:
    """Molecule's scenarios, the longest first: then the last ones to end do so at about the same time."""
    names = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    return sorted(names, key=lambda name: name not in LONGEST)


def molecule(names: Sequence[str] = ()) -> bool:
    """Two scenarios at a time, as each of them waits for half of its time; one alone shows what it does."""
    chosen = names or scenarios()
    if len(chosen) == 1:
        return one_scenario(chosen[0], None)
    say(
        colour("1;36", f"\n── molecule: {len(chosen)} scenarios, {AT_ONCE} at a time ")
        + colour("36", "─" * 30)
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return all(list(pool.map(lambda name: one_scenario(name, RESULTS / f"molecule-{name}.log"), chosen)))


def one_scenario(name: str, log: Path | None) -> bool:
    """Whatever happens, its servers go."""
    try:
        return run(f"molecule-{name}", BIN / "molecule", "test", "--scenario-name", name, log=log)
    finally:
        if (ROOT / ".sim" / f"molecule-{name}").exists():
            subprocess.run([SIM, "down", "--name", f"molecule-{name}"], stdin=subprocess.DEVNULL, check=False)


SUITES = {"lint": lint, "unit": unit, "molecule": molecule, "conformance": conformance}


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument(
        "--counts", action="store_true", help="list what failed, and the sum of all as the last line"
    )
    parser.add_argument("--scenario", action="append", default=[], help="only this Molecule scenario")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for path in RESULTS.glob("*.xml"):
            path.unlink()
    good = True
    for name in options.suites:
        good = (molecule(options.scenario) if name == "molecule" else SUITES[name]()) and good
    if options.counts:
        reports = sorted(RESULTS.glob("*.xml"))
        total = sum((counts(path) for path in reports), Counts())
        if total.failed:
            say(colour("1;31", "\nFailed:"))
            for failure in [one for path in reports for one in failures(path)]:
                say(f"  {failure}")
        say(f"{total.passed} passed, {total.failed} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
