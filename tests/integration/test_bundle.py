"""The bundle for a site without a network: complete, checked, and enough to plan with the network off."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, run

SCRIPT = ROOT / "scripts" / "bundle.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a stand-in for each large thing."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("weights", "aisbench"):
        (folder / name).mkdir()
    (folder / "vllm-ascend.tar").write_bytes(b"image")
    (folder / "weights" / "model.safetensors").write_bytes(b"shard")
    (folder / "weights" / ".cache").write_bytes(b"the downloader's own")
    (folder / "aisbench" / "ais_bench-1.0-py3-none-any.whl").write_bytes(b"wheel")
    done = run(
        *(sys.executable, SCRIPT, "--output", folder / "bundle", "--image", folder / "vllm-ascend.tar"),
        *("--weights", folder / "weights", "--aisbench", folder / "aisbench"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle"


def test_everything_is_there_with_its_checksum(made: Path) -> None:
    checked = run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=made)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = {line.split("  ", 1)[1] for line in (made / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}
    assert {"image/vllm-ascend.tar", "aisbench/ais_bench-1.0-py3-none-any.whl", "README.md"} <= listed
    routers = [name for name in listed if name.startswith("router/vllm_router-")]
    assert {name.rpartition("_28_")[2] for name in routers} == {"x86_64.whl", "aarch64.whl"}
    assert "pd_router_wheels: /path/of/this/bundle/router" in (made / "README.md").read_text()


def test_the_manifest_is_what_the_rollout_compares_with(made: Path) -> None:
    files = json.loads((made / "weights-manifest.json").read_text())["files"]
    assert files == {"model.safetensors": {"size": 5, "sha256": hashlib.sha256(b"shard").hexdigest()}}


def test_a_directory_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = run(sys.executable, SCRIPT, "--output", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "is no bundle" in done.stderr
    assert (tmp_path / "precious").exists()


def without_network(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace of its own, in which there is nothing."""
    return run("unshare", "--net", *(() if is_root() else ("--map-root-user",)), *command, cwd=cwd)


def is_root() -> bool:
    return Path("/proc/self").stat().st_uid == 0


def test_the_readme_s_steps_plan_with_the_network_off(made: Path, tmp_path: Path) -> None:
    """The steps as the README has them, run by a shell, and then a plan."""
    site = tmp_path / "site"
    shutil.copytree(made, site)
    commands = [
        line.strip()
        for line in (site / "README.md").read_text().splitlines()
        if line.startswith(
            ("    python3", "    venv/bin/python", "    venv/bin/ansible-galaxy", "    export")
        )
    ]
    assert len(commands) == 4
    plan = "venv/bin/ansible-playbook ascend.pd_rollout.plan -e pd_plan_dir=$PWD/plan -i"
    script = "\n".join(["set -eu", *commands, f"{plan} {ROOT / 'inventory' / 'atlas_a3_1p1d'}"])
    done = without_network("bash", "-c", script, cwd=site)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads((site / "plan" / "plan.json").read_text())["topology"] == "1P1D"
