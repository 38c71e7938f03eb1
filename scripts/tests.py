#!/usr/bin/env python3
"""Run test suites, all to their end, and count: `tests.py lint unit molecule`, `tests.py --counts`.

What pytest reports (Molecule's verifier is pytest too) goes to build/test-results/*.xml. A suite that fails
without a failed test (a linter, a scenario that does not converge) counts as one failure. How long each suite
and each step of a scenario took goes to build/test-results/*.json, and is shown at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ui import colour, say

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
SIM = ROOT / "simulator" / "sim"
RESULTS = ROOT / "build" / "test-results"
# Scenarios at a time: each of them waits for a part of its time, and a server of theirs takes some 150 MB.
AT_ONCE = 3
# Suites and scenarios of this run.
RAN: list[str] = []
# Tests that are named at the end.
LONGEST = 15
# Molecule says when it begins a step of a scenario, in colours.
STEP = re.compile(rb"\xe2\x9e\x9c (?:\x1b\[[0-9;]*m)*(\w+)(?:\x1b\[[0-9;]*m)*: (?:\x1b\[[0-9;]*m)*Executing")


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


def run(
    name: str,
    *command: str | Path,
    log: Path | None = None,
    shown: bool = True,
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Run one suite.

    :param name: what it is called in reports
    :param command: the words of its command
    :param log: where to write what it prints, for a scenario, whose steps are timed
    :param shown: show what it prints as it comes, not only the log of what has failed
    :param environment: variables beside this process's own
    :return: whether all is well
    """
    report = RESULTS / f"{name}.xml"
    for earlier in RESULTS.glob(f"{name}.*"):
        earlier.unlink()
    if shown:
        say(colour("1;36", f"\n── {name} ") + colour("36", "─" * max(3, 76 - len(name))))
    else:
        say(f"{name} …")
    own = {
        **os.environ,
        **(environment or {}),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}".strip(),
    }
    begun = time.monotonic()
    code, steps = logged(command, own, log, shown=shown) if log else (called(command, own), {})
    took = time.monotonic() - begun
    if code and all_counts(name).failed == 0:
        record_failure(report, name, code)
    found = all_counts(name)
    RAN.append(name)
    (RESULTS / f"{name}.json").write_text(json.dumps({"seconds": took, "steps": steps}), encoding="utf-8")
    verdict = colour("31", "failed") if code else colour("32", "passed")
    told = f"{log.read_text(errors='replace')}\n" if log and code and not shown else ""
    say(f"{told}{name}: {verdict}, {found.passed} passed, {found.failed} failed ({took:.0f} s)")
    return code == 0


def called(command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
    """Run a command that prints for itself; its exit status."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode


def logged(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path, *, shown: bool
) -> tuple[int, dict[str, float]]:
    """Run a scenario's command, its output into a file; its exit status, and the seconds of each step."""
    steps: dict[str, float] = {}
    step, since = "", time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            if shown:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
            if found := STEP.search(line):
                now = time.monotonic()
                if step:
                    steps[step] = steps.get(step, 0) + now - since
                step, since = found[1].decode(), now
    if step:
        steps[step] = steps.get(step, 0) + time.monotonic() - since
    return process.returncode, steps


def times(names: Collection[str] = ()) -> None:
    """Print where the time went, the longest first: suites and scenarios with their steps, single tests.

    :param names: suites and scenarios; none: all that there are results of
    """
    taken = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in RESULTS.glob("*.json")
        if not names or path.stem in names
    }
    say(colour("1", "\nWhere the time went, in seconds (scenarios run beside each other):"))
    for name, one in sorted(taken.items(), key=lambda item: -item[1]["seconds"]):
        steps = ", ".join(f"{step} {seconds:.0f}" for step, seconds in one["steps"].items() if seconds >= 1)
        say(f"  {one['seconds']:6.0f}  {name}{f' ({steps})' if steps else ''}")
    say("The longest tests:")
    tests = [
        (float(case.get("time", 0)), f"{path.stem}: {case.get('name')}")
        for path in RESULTS.glob("*.xml")
        if path.name.partition(".")[0] in taken
        for case in ElementTree.parse(path).getroot().iter("testcase")
    ]
    for seconds, name in sorted(tests, reverse=True)[:LONGEST]:
        say(f"  {seconds:6.0f}  {name}")


def record_failure(report: Path, name: str, code: int) -> None:
    """A report for what failed without a test of its own."""
    suite = ElementTree.Element("testsuite", name=name, tests="1", failures="1", errors="0", skipped="0")
    case = ElementTree.SubElement(suite, "testcase", name=name)
    ElementTree.SubElement(case, "failure", message=f"exit {code}")
    ElementTree.ElementTree(suite).write(report)


def lint(*, shown: bool = True) -> bool:
    """The linters."""
    return run("lint", ROOT / "scripts" / "lint", log=RESULTS / "lint.log", shown=shown)


def lint_and_unit() -> bool:
    """Both at once: the linters use one core."""
    with ThreadPoolExecutor(1) as beside:
        linted = beside.submit(lint, shown=False)
        return all([unit(), linted.result()])


def unit() -> bool:
    """Everything that needs no server."""
    # The files with few long tests first: they would keep one worker busy when all others have ended.
    folders = [
        folder for folder in ("integration", "unit", "simulator") if (ROOT / "tests" / folder).is_dir()
    ]
    # A file's tests stay together: what they share is made once. Many of them wait for processes.
    workers = (
        "--numprocesses",
        str((os.cpu_count() or 1) + 1),
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
    )
    return run(
        "unit",
        BIN / "pytest",
        "--quiet",
        *workers,
        *(f"tests/{folder}" for folder in folders),
        # What is installed for a test is not worth compiling as a whole.
        environment={"PIP_COMPILE": "0"},
    )


def conformance() -> bool:
    """Against the real parser of vLLM."""
    return run("conformance", BIN / "python", ROOT / "scripts" / "conformance.py")


def scenarios() -> list[str]:
    """Molecule's scenarios, those with most to test first: then the last ones end at about the same time."""
    folders = [path.parent for path in (ROOT / "molecule").glob("*/molecule.yml")]
    return [folder.name for folder in sorted(folders, key=size, reverse=True)]


def size(folder: Path) -> int:
    """How much a scenario has to test, roughly: the bytes of its tests and tables."""
    return sum(path.stat().st_size for path in (*folder.glob("tests/*.py"), *folder.glob("*.yml")))


def molecule(names: Sequence[str] = (), *, quick: bool = False) -> bool:
    """Several scenarios at a time, as each of them waits for a part of its time; one alone is shown.

    :param names: the scenarios; none: all
    :param quick: of the numbered files of tests only the first
    :return: whether all is well
    """
    chosen = names or scenarios()
    if quick:
        # Molecule names each file, and pytest ignores none that is named: so by a part of the tests' names.
        later = " and ".join(f"not test_{number}_" for number in range(2, 10))
        os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -k '{later}'"
    if len(chosen) == 1:
        return one_scenario(chosen[0], shown=True)
    say(
        colour("1;36", f"\n── molecule: {len(chosen)} scenarios, {AT_ONCE} at a time ")
        + colour("36", "─" * 30)
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return all(list(pool.map(one_scenario, chosen)))


def one_scenario(name: str, *, shown: bool = False) -> bool:
    """A scenario on servers of its own, from nothing. Whatever happens, its servers go.

    Molecule need not remove them: two playbooks less.
    """
    remove_servers(name)
    # Molecule remembers in its folder what it has done; this one has done nothing yet.
    with tempfile.TemporaryDirectory(prefix=f"molecule-{name}-") as folder:
        try:
            return run(
                f"molecule-{name}",
                *(BIN / "molecule", "test", "--destroy=never", "--scenario-name", name),
                log=RESULTS / f"molecule-{name}.log",
                shown=shown,
                environment={"MOLECULE_EPHEMERAL_DIRECTORY": folder},
            )
        finally:
            remove_servers(name)


def remove_servers(name: str) -> None:
    """Remove a scenario's servers, if there are any."""
    if (ROOT / ".sim" / f"molecule-{name}").exists():
        subprocess.run([SIM, "down", "--name", f"molecule-{name}"], stdin=subprocess.DEVNULL, check=False)


SUITES = {"lint": lint, "unit": unit, "molecule": molecule, "conformance": conformance}


def options_given() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument(
        "--counts", action="store_true", help="list what failed, and the sum of all as the last line"
    )
    parser.add_argument("--scenario", action="append", default=[], help="only this Molecule scenario")
    parser.add_argument("--quick", action="store_true", help="of a scenario only the first file of tests")
    return parser.parse_args()


def main() -> int:
    """Run what is asked for."""
    options = options_given()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for path in (*RESULTS.glob("*.xml"), *RESULTS.glob("*.json")):
            path.unlink()
    suites = list(options.suites)
    good = True
    if {"lint", "unit"} <= set(suites):
        suites = [name for name in suites if name not in ("lint", "unit")]
        good = lint_and_unit()
    for name in suites:
        done = molecule(options.scenario, quick=options.quick) if name == "molecule" else SUITES[name]()
        good = done and good
    if options.counts or RAN:
        times(RAN)
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
