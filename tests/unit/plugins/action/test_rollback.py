# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The choice of a revision and its plan, as rollback.yml has them made; no host in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import history
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import revisions

ROOT = Path(__file__).resolve().parents[4]
ALL = {
    "pd_image": "registry.example/vllm-ascend:v0.13.0-a3",
    "pd_model_path": "/weights/model",
    "pd_served_model_name": "model",
    "pd_parallel": {"tensor": 16},
    "pd_profile": "generic",
}
HOSTS = {
    "prefiller": {"hosts": {"p1": {"ansible_host": "198.51.100.1"}}},
    "decoder": {"hosts": {"d1": {"ansible_host": "198.51.100.2"}}},
    "proxy": {"hosts": {"p1": None}},
}
NOTHING = {"revisions": [], "images": {}, "containers": [], "front": "", "drained": ""}


class Site:
    """An inventory, and the directory of its plan."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, folder / "plan" / "history"
        self.inventory = folder / "cluster"
        self.write(HOSTS)

    def write(self, hosts: dict[str, Any], **variables: Any) -> None:
        """Write the inventory."""
        (self.inventory / "group_vars").mkdir(parents=True, exist_ok=True)
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
        every = {**ALL, "pd_plan_dir": str(self.folder / "plan"), **variables}
        (self.inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump(every))

    def keep(self, number: int) -> str:
        """Plan the inventory, and keep the plan as a revision; return the plan."""
        assert self.play(str(ROOT / "playbooks" / "plan.yml"))[0] == 0
        text = (self.folder / "plan" / "plan.json").read_text()
        record = revisions.of_plan(json.loads(text), {}, {}, who="me@here", when="2026-03-01T10:15:00Z")
        history.write(self.history, {"revision": number, **record}, text)
        return text

    def play(self, playbook: str) -> tuple[int, str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(
            [program, "-i", str(self.inventory), playbook],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=ROOT,
        )
        return done.returncode, done.stdout + done.stderr

    def rollback(
        self, revision: str = "", found: dict[str, Any] | None = None, sent: str = ""
    ) -> tuple[int, str]:
        """Choose a revision and take its plan.

        found: what servers have said of their revisions.
        sent: the plan that one of them has sent.
        """
        play = {
            "hosts": "prefiller:decoder:proxy",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.set_fact": {"found": {**NOTHING, **(found or {})}, "read": {"plan": sent}}},
                {
                    "ascend.pd_rollout.revision_choice": {
                        "servers": "{{ ansible_play_hosts }}",
                        "result": "found",
                        "revision": revision,
                    },
                    "run_once": True,
                    "register": "choice",
                },
                {
                    "ascend.pd_rollout.revision_plan": {"choice": "{{ choice }}", "result": "read"},
                    "run_once": True,
                    "register": "pd_plan",
                },
                # As for a deployment.
                {"ascend.pd_rollout.plan": {"made": "{{ pd_plan }}"}, "run_once": True, "diff": True},
                {
                    "ansible.builtin.debug": {
                        "msg": "revision {{ pd_plan.revision }} at '{{ choice.at }}' of"
                        " {{ pd_plan.hosts | list }}, engines"
                        " {{ pd_plan.hosts[inventory_hostname].engines | map(attribute='container') }}"
                    }
                },
            ],
        }
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([play]))
        return self.play(str(path))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_back_to_a_revision_of_this_controller(site: Site) -> None:
    """Although the inventory has errors by now, and a server more."""
    text = site.keep(1)
    more = {
        **HOSTS,
        "decoder": {"hosts": {**HOSTS["decoder"]["hosts"], "d2": {"ansible_host": "198.51.100.3"}}},
    }
    site.write(more, pd_parallel={"tensor": 3})
    (site.folder / "plan" / "plan.json").unlink()
    code, output = site.rollback("0001")
    assert code == 0, output
    assert "Back to revision 1 of 2026-03-01T10:15:00Z" in output
    assert "revision 1 at '' of ['p1', 'd1', 'd2'], engines ['pd-prefiller']" in output
    assert "engines []" in output
    written = json.loads((site.folder / "plan" / "plan.json").read_text())
    assert written["hash"] == json.loads(text)["hash"]
    # What is secret in it only the inventory of then knows.
    assert "--- " not in output


def test_a_plan_that_only_a_server_has(site: Site) -> None:
    text = site.keep(3)
    record = history.read(site.history, 3)
    assert record is not None
    for file in (site.history / "0003").iterdir():
        file.unlink()
    (site.history / "0003").rmdir()
    code, output = site.rollback("3", {"revisions": [record]}, text)
    assert code == 0, output
    assert "revision 3 at 'p1' of ['p1', 'd1']" in output


def test_an_unknown_revision_is_refused_with_the_list(site: Site) -> None:
    site.keep(1)
    code, output = site.rollback("2")
    assert code != 0
    assert "change-revision-unknown" in output
    assert "1         2026-03-01 10:15  me@here  v0.13.0  1P1D      -" in output


def test_there_is_nothing_to_go_back_to(site: Site) -> None:
    code, output = site.rollback()
    assert code != 0
    assert "there is no revision to go back to; nothing was changed" in output


def test_a_server_that_the_inventory_lacks(site: Site) -> None:
    site.keep(1)
    site.write({**HOSTS, "decoder": {"hosts": {"other": {"ansible_host": "198.51.100.9"}}}})
    code, output = site.rollback("1")
    assert code != 0
    assert "change-revision-servers  d1" in output
    assert "d1 (198.51.100.2)" in output


def test_an_image_whose_name_stands_for_another_one(site: Site) -> None:
    site.keep(1)
    record = {**(history.read(site.history, 1) or {})}
    record["image"]["ids"] = ["sha256:then"]
    (site.history / "0001" / "revision.json").write_text(json.dumps(record))
    code, output = site.rollback("1", {"images": {ALL["pd_image"]: "sha256:now"}})
    assert code == 0, output
    assert "WARNING change-revision-image" in output


def test_a_key_that_the_inventory_no_longer_has(site: Site) -> None:
    site.write(HOSTS, pd_api_key="the-engines-key")
    site.keep(1)
    assert site.rollback("1")[0] == 0
    site.write(HOSTS)
    code, output = site.rollback("1")
    assert code != 0
    assert "change-revision-key" in output


def test_a_plan_of_another_version_of_the_collection(site: Site) -> None:
    text = site.keep(1)
    lacking = {key: value for key, value in json.loads(text).items() if key != "fabric"}
    (site.history / "0001" / "plan.json").write_text(json.dumps(lacking))
    code, output = site.rollback("1")
    assert code != 0
    assert "change-revision-format" in output
