"""The collection outside its checkout: built, installed elsewhere, run by its full name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from .conftest import BIN, ROOT, run

PLAYBOOKS = ("deploy_1p1d", "deploy", "plan", "check", "stop")


def test_the_tarball_carries_what_a_controller_needs_and_no_more(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
    tops = {name.split("/")[0] for name in names}
    assert {"playbooks", "plugins", "roles", "inventory", "docs", "meta"} <= tops
    assert not tops & {"simulator", "tests", "molecule", ".sim", ".venv", ".cache", ".collections", "plans"}
    assert {f"playbooks/{name}.yml" for name in PLAYBOOKS} <= names


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_playbooks_are_found_by_their_full_name(
    name: str, installed: Path, bundle: Path, tmp_path: Path
) -> None:
    seen = run(
        BIN / "ansible-playbook",
        f"ascend.pd_rollout.{name}",
        "--syntax-check",
        "-i",
        ROOT / "inventory" / "guide_1p1d",
        cwd=tmp_path,
        env={"ANSIBLE_COLLECTIONS_PATH": f"{installed}:{bundle}"},
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr


def plan(binaries: Path, installed: Path, bundle: Path, folder: Path) -> dict[str, object]:
    done = run(
        binaries / "ansible-playbook",
        "ascend.pd_rollout.plan",
        "-i",
        ROOT / "inventory" / "guide_1p1d",
        "-e",
        f"pd_plan_dir={folder / 'plan'}",
        cwd=folder,
        env={"ANSIBLE_COLLECTIONS_PATH": f"{installed}:{bundle}", "ANSIBLE_HOME": str(folder / "home")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written: dict[str, object] = json.loads((folder / "plan" / "plan.json").read_text(encoding="utf-8"))
    return written


def test_every_ansible_core_makes_the_same_plan(
    installed: Path, bundle: Path, oldest_bin: Path, newest_bin: Path, tmp_path: Path
) -> None:
    plans = []
    for binaries in (BIN, oldest_bin, newest_bin):
        folder = tmp_path / str(len(plans))
        folder.mkdir()
        plans.append(plan(binaries, installed, bundle, folder))
    assert plans[0]["topology"] == "1P1D"
    assert plans[1:] == [plans[0], plans[0]]


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_playbooks_parse_on_the_oldest_ansible_core(name: str, bundle: Path, oldest_bin: Path) -> None:
    seen = run(
        oldest_bin / "ansible-playbook",
        "--syntax-check",
        f"playbooks/{name}.yml",
        cwd=ROOT,
        env={"ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.collections'}:{bundle}"},
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr


@pytest.mark.parametrize("folder", [ROOT, ROOT / "playbooks"], ids=["root", "playbooks"])
def test_a_checkout_works_without_installing(folder: Path, tmp_path: Path) -> None:
    playbook = "playbooks/plan.yml" if folder == ROOT else "plan.yml"
    done = run(BIN / "ansible-playbook", playbook, "-e", f"pd_plan_dir={tmp_path}", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["cluster"] == "simulated_1p1d"
