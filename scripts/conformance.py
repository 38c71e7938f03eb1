#!/usr/bin/env python3
"""Check the shipped inventories, the simulated parser and the rules against the real vLLM of each release.

Run by the project's virtual environment:

    .venv/bin/python scripts/conformance.py [--vllm VERSION …] [--regenerate] [pytest options]

For each release an environment is made once under .cache/conformance/VERSION and kept until its requirements
change: the source distributions of vLLM and of vllm-ascend unpacked, as no compiled part of them is needed,
and a virtual environment with what they import. torch, the large part (0.9 GB), lies beside them once for
all. Nothing needs a device.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[1]
# By this name mypy checks what is imported here; by that of the collection it would pass over it.
sys.path.insert(0, str(ROOT))

from plugins.action.plan import read_inventory  # noqa: E402
from plugins.module_utils._findings import render_text  # noqa: E402
from plugins.plugin_utils._distribution.router_wheels import WheelError, provided  # noqa: E402
from plugins.plugin_utils.rollout import plan as planner  # noqa: E402
from plugins.plugin_utils.rollout import render  # noqa: E402
from plugins.plugin_utils.rollout.findings import PlanError  # noqa: E402
from plugins.plugin_utils.rollout.inventory import RawInventory  # noqa: E402
from plugins.plugin_utils.rollout.routers import vllm_router  # noqa: E402

HOME = ROOT / ".cache" / "conformance"
TORCH = "torch==2.13.0"
"""Any recent torch does. pip takes the one its configuration leads to; a CPU build is enough."""
SDIST_SHA256 = {
    "0.13.0": "4ad43db45fef37114b550d03a4f423fb3fa3a31d8bc09ee810ef8b9cdcd4b5fe",
    "0.18.0": "9a1bee091db8dbb4664a2a09cd9c61912e9912a44af1ce12b8593a231d05971c",
    "0.23.0": "760269db3d9611e12e524681df1bca0977d5d2f5fcb4481cc34d33efc4ae7ff5",
}
"""vLLM version -> its source distribution. The release of vllm-ascend has the same number
(docs/upstream-facts.md, "Releases")."""
ASCEND_SDIST = {
    "0.13.0": ("0.13.0", "ab0e9bc12b9a4042c261901ccad96f4faab6e6d04cf5131f7cc2358aafda3a36"),
    "0.18.0": ("0.18.0", "8df042cfaae06fab993bff5f38bb45097634c3f398b2cf74e068347abdddb344"),
    "0.23.0": ("0.23.0.post1", "a3b9f4a5dd7aa50c37e03d1f35937c4ae5aeacc49b734cac74d59ce5757738e1"),
}
"""vLLM version -> version of vllm-ascend, its source distribution."""
PUBLISHED = ("docs/source/tutorials", "tests/e2e/nightly")
"""What else of vllm-ascend's is read: the commands that it publishes."""
OWN = "as-written"
"""Folder of the plans for the release that the inventory names."""
# Python compiles what is imported, once; that is a small part of these packages.
PIP = ("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile")
AT_ONCE = 2
"""Environments that are made at the same time."""


class Failed(Exception):
    """A step that cannot be done, in one sentence."""


def say(message: str) -> None:
    print(message, flush=True)


def run(command: list[str], what: str) -> None:
    """Run a command; its output is shown only when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{what} failed:\n{(done.stdout + done.stderr)[-3000:]}")


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """One maker of each folder at a time."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def torch_folder() -> Path:
    """The folder with torch."""
    return HOME / f"{TORCH.replace('==', '-')}-py{sys.version_info[0]}{sys.version_info[1]}"


def ensure_torch() -> None:
    """Make it when it is not there."""
    folder = torch_folder()
    with alone("torch"):
        if folder.exists():
            return
        say(f"{TORCH} for all conformance environments (once; 0.9 GB) …")
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(dir=HOME) as unfinished:
            target = Path(unfinished) / "site"
            run([sys.executable, *PIP, "--target", str(target), TORCH], f"installing {TORCH}")
            target.rename(folder)
        say(f"  {TORCH}: done in {time.monotonic() - begun:.0f} s")


@dataclass(frozen=True)
class Environment:
    """Where the real parser of one release runs."""

    version: str

    @property
    def home(self) -> Path:
        return HOME / self.version

    @property
    def source(self) -> Path:
        return self.home / f"vllm-{self.version}"

    @property
    def python(self) -> Path:
        return self.home / "venv" / "bin" / "python"

    @property
    def requirements(self) -> Path:
        return ROOT / "tests" / "conformance" / f"requirements-{self.version}.txt"

    @property
    def data(self) -> Path:
        """What the simulated engine knows of this parser."""
        folder = ROOT / "simulator" / "engine" / "rootfs" / "opt" / "pd-sim-engine" / "data"
        return folder / f"vllm_serve_{self.version}.json"

    def recipe(self) -> str:
        """What the environment is made from, as a hash."""
        words = (
            sys.version.split()[0],
            TORCH,
            SDIST_SHA256[self.version],
            self.requirements.read_text("utf-8"),
        )
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def ensure(self) -> None:
        """Make it when it is not there."""
        mark = self.home / "recipe"
        with alone(self.version):
            self.home.mkdir(exist_ok=True)
            if not all((self.ascend / folder).exists() for folder in PUBLISHED):
                self.fetch("vllm-ascend", *ASCEND_SDIST[self.version], self.ascend)
            if mark.exists() and mark.read_text("utf-8") == self.recipe() and self.python.exists():
                return
            begun = time.monotonic()
            mark.unlink(missing_ok=True)
            say(f"Conformance environment for vLLM {self.version} (once) …")
            self.fetch("vllm", self.version, SDIST_SHA256[self.version], self.source)
            venv = self.home / "venv"
            # pip of this environment installs into it: it needs none of its own.
            run(
                [sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)],
                "making the environment",
            )
            (site,) = venv.glob("lib/python*/site-packages")
            (site / "torch.pth").write_text(f"{torch_folder()}\n", encoding="utf-8")
            into = [sys.executable, "-m", "pip", "--python", str(self.python), *PIP[2:]]
            run([*into, "--no-deps", "--requirement", str(self.requirements)], "installing the requirements")
            mark.write_text(self.recipe(), encoding="utf-8")
            say(f"  vLLM {self.version}: done in {time.monotonic() - begun:.0f} s")

    @property
    def ascend(self) -> Path:
        """The unpacked source distribution of vllm-ascend."""
        return self.home / f"vllm-ascend-{ASCEND_SDIST[self.version][0]}"

    def fetch(self, project: str, version: str, sha256: str, target: Path) -> None:
        """What is read of a source distribution, pinned by its hash, without building it."""
        unearth = Path(sys.executable).with_name("unearth")
        if not unearth.exists():
            raise Failed(
                "unearth is missing in this Python's environment: run `make venv` and use .venv/bin/python."
            )
        package = project.replace("-", "_")
        name = f"{package}-{version}"
        with tempfile.TemporaryDirectory(dir=self.home) as folder:
            command = [str(unearth), f"{project}=={version}", "--no-binary", "--download", folder]
            run(command, f"fetching the sources of {project}")
            archives = sorted(Path(folder).glob("*.tar.gz"))
            if len(archives) != 1:
                found = [path.name for path in archives]
                raise Failed(f"fetching the sources of {project} gave {found}, not one archive.")
            found_hash = hashlib.sha256(archives[0].read_bytes()).hexdigest()
            if found_hash != sha256:
                raise Failed(f"{archives[0].name} has sha256 {found_hash}, expected {sha256}: not used.")
            with tarfile.open(archives[0]) as tar:
                folders = tuple(f"{name}/{folder}/" for folder in (package, *PUBLISHED))
                wanted = [
                    member
                    for member in tar.getmembers()
                    if member.name.startswith(folders) or member.name == f"{name}/PKG-INFO"
                ]
                tar.extractall(folder, members=wanted, filter="data")
            shutil.rmtree(target, ignore_errors=True)
            (Path(folder) / name).rename(target)

    def regenerate(self) -> None:
        """Write the data files of this release anew: the simulated engine's and the planner's."""
        generator = ROOT / "scripts" / "gen_vllm_args.py"
        planner = ROOT / "plugins" / "plugin_utils" / "rollout" / "data" / "vllm" / f"{self.version}.yml"
        planner.parent.mkdir(exist_ok=True)
        command = [str(self.python), str(generator), "--source", str(self.source)]
        run([*command, "--output", str(self.data), "--planner", str(planner)], "reading the parser")
        bench = self.data.with_name(f"vllm_bench_serve_{self.version}.json")
        command = [
            str(self.python),
            str(ROOT / "scripts" / "gen_bench_args.py"),
            "--source",
            str(self.source),
        ]
        run([*command, "--output", str(bench)], "reading the parser of vllm bench serve")
        say(f"{self.data.relative_to(ROOT)} and {planner.relative_to(ROOT)} written.")

    def test(self, plans: Path, options: list[str]) -> tuple[bool, str]:
        """Run the tests in this environment: whether they pass, and what pytest prints."""
        environment = os.environ | {
            "PD_CONFORMANCE_VLLM": self.version,
            "PD_CONFORMANCE_SOURCE": str(self.source),
            "PD_CONFORMANCE_ASCEND": str(self.ascend),
            "PD_CONFORMANCE_PLANS": str(plans),
            "PD_CONFORMANCE_ROUTER": str(router_wheel()),
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        # A report of its own for each version, where a report is asked for.
        added = os.environ.get("PYTEST_ADDOPTS", "")
        environment["PYTEST_ADDOPTS"] = re.sub(r"(--junitxml=\S+)\.xml", rf"\1.{self.version}.xml", added)
        command = [str(self.python), "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/conformance"]
        done = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stdout


def router_wheel() -> Path:
    """The wheel of vllm-router with the parser, which is the same in those of all architectures."""
    wheels = vllm_router().wheels["x86_64"]
    name = next(name for name in wheels if name.startswith("vllm_router-"))
    try:
        return provided({name: wheels[name]}, cache=HOME / "router")[name]
    except WheelError as error:
        raise Failed(str(error)) from error


def read(inventory: Path, release: str) -> RawInventory:
    """An inventory as the action plugin reads it, for the release that it names or for another one."""
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    if release != OWN:
        variables._extra_vars = {"pd_release": release, "pd_image": f"ascend/vllm-ascend:{release}-a3"}
    return read_inventory({"hostvars": HostVars(manager, variables, loader)})


def render_plan(inventory: Path, release: str, folder: Path) -> None:
    """Plan an inventory into FOLDER/RELEASE/INVENTORY, as playbooks/plan.yml does.

    What the rules say where it cannot be planned stands in refused.txt there.
    """
    target = folder / release / inventory.name
    target.mkdir(parents=True)
    try:
        (plan,) = planner.make_all(read(inventory, release), None).values()
    except PlanError as error:
        (target / "refused.txt").write_text("\n".join(render_text(error.findings)), encoding="utf-8")
    else:
        render.write(target, plan.to_dict(), dry_run=False)


def render_plans(folder: Path, versions: list[str]) -> None:
    """Every shipped inventory, for the release that it names and for all of these."""
    inventories = sorted(path.parent for path in (ROOT / "inventory").glob("*/hosts.yml"))
    releases = [OWN, *(f"v{version}" for version in versions)]
    say(f"Plans of {len(inventories)} inventories, each as written and for {', '.join(releases[1:])} …")
    begun = time.monotonic()
    for inventory in inventories:
        for release in releases:
            render_plan(inventory, release, folder)
    say(f"  done in {time.monotonic() - begun:.0f} s")


def run_tests(plans: Path, versions: list[str], options: list[str]) -> bool:
    """The tests in the environments of all these versions; True if they pass.

    All at once: one after the other would leave a core idle when the last one runs.
    """
    say(f"Tests against vLLM {', '.join(versions)} …")
    good = True
    with ThreadPoolExecutor(len(versions)) as pool:
        done = pool.map(lambda version: Environment(version).test(plans, options), versions)
        for version, (passed, told) in zip(versions, done, strict=True):
            say(f"Against vLLM {version}:\n{told.rstrip()}")
            good = good and passed
    return good


def ensure(versions: list[str]) -> None:
    """The environments of all these versions, and torch, which takes longest: most of it is waiting."""
    makers = [ensure_torch, *(Environment(version).ensure for version in versions)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for made in [pool.submit(maker) for maker in makers]:
            made.result()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", action="append", choices=[*SDIST_SHA256], help="only this version")
    parser.add_argument("--regenerate", action="store_true", help="write the data files instead of testing")
    parser.add_argument("--environment", action="store_true", help="make the environments and stop")
    options, rest = parser.parse_known_args()
    versions = options.vllm or list(SDIST_SHA256)
    try:
        ensure(versions)
        if options.environment:
            return 0
        if options.regenerate:
            for version in versions:
                Environment(version).regenerate()
            return 0
        with tempfile.TemporaryDirectory(prefix="pd-conformance-") as folder:
            render_plans(Path(folder), versions)
            return 0 if run_tests(Path(folder), versions, rest) else 1
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
