"""The picture in the README is the plan's own."""

from __future__ import annotations

from pathlib import Path

from .conftest import BIN, ROOT, run


def test_the_picture_of_the_readme_is_the_recommended_inventory_s(tmp_path: Path) -> None:
    done = run(
        BIN / "ansible-playbook",
        "-i",
        "inventory/atlas_a3_1p1d",
        "playbooks/plan.yml",
        "-e",
        f"pd_plan_dir={tmp_path}",
        "-e",
        "pd_image_registry=registry.example",
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = (tmp_path / "topology.svg").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "topology.svg").read_text(encoding="utf-8") == drawn, "run `make docs`"
