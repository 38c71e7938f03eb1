# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin plan, as a user runs it: playbooks against inventories, no host in sight."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]

GOOD_VARS: dict[str, Any] = {
    "pd_image": "registry.example/vllm-ascend:v0.13.0-a3",
    "pd_model_path": "/weights/model",
    "pd_served_model_name": "model",
    "pd_parallel": {"tensor": 16},
}
GOOD_HOSTS: dict[str, Any] = {
    "prefiller": {"hosts": {"p1": {"ansible_host": "198.51.100.1"}}},
    "decoder": {"hosts": {"d1": {"ansible_host": "198.51.100.2"}}},
    "proxy": {"hosts": {"p1": None}},
}


@dataclass
class Run:
    code: int
    text: str
    seconds: float

    def changed(self) -> int:
        return sum(map(int, re.findall(r"changed=(\d+)", self.text)))


def play(inventory: Path, *arguments: str, playbook: Path = ROOT / "playbooks" / "plan.yml") -> Run:
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(inventory),
        str(playbook),
        *arguments,
    ]
    start = time.monotonic()
    # Nothing answers at the servers' addresses: a connection would fail, and slowly.
    environment = {
        **os.environ,
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "200",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=120
    )
    return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - start)


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., Path]:
    def make(hosts: dict[str, Any] | None = None, **groups: dict[str, Any]) -> Path:
        directory = tmp_path / "testcluster"
        (directory / "group_vars").mkdir(parents=True, exist_ok=True)
        (directory / "hosts.yml").write_text(
            yaml.safe_dump(hosts or GOOD_HOSTS, sort_keys=False), encoding="utf-8"
        )
        for name, variables in {"all": GOOD_VARS, **groups}.items():
            (directory / "group_vars" / f"{name}.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
        return directory

    return make


def test_plan_is_written_once(tmp_path: Path) -> None:
    where = tmp_path / "plan"
    option = f"pd_plan_dir={where}"
    guide = ROOT / "inventory" / "guide_1p1d"
    dry = play(guide, "-e", option, "--check")
    assert dry.code == 0, dry.text
    assert dry.changed() == 1
    assert not where.exists()
    first = play(guide, "-e", option)
    assert first.code == 0, first.text
    assert first.changed() == 1
    assert {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()} == {
        "plan.json",
        "topology.md",
        "topology.svg",
        "prefill1/prefiller.sh",
        "prefill1/proxy.sh",
        "prefill2/prefiller.sh",
        "decode1/decoder.sh",
    }
    assert str(where) in first.text
    assert re.search(r"prefill1 +30000-30015 +KV handshake +prefiller", first.text)
    assert "WARNING PD302  prefill1, prefill2 / prefiller / pd_kv_port" in first.text
    again = play(guide, "-e", option, "--diff")
    assert again.changed() == 0
    assert "up to date" in again.text
    changed = play(guide, "-e", option, "--check", "--diff", "-e", "pd_api_port=8104")
    assert changed.changed() == 1
    assert "+  --port 8104" in changed.text
    assert (
        json.loads((where / "plan.json").read_text(encoding="utf-8"))["proxy"]["prefillers"][0]["port"]
        == 8004
    )


def test_a_plan_that_was_made_is_written_as_it_was(tmp_path: Path) -> None:
    guide = ROOT / "inventory" / "guide_1p1d"
    assert play(guide, "-e", f"pd_plan_dir={tmp_path / 'at_once'}").code == 0
    playbook = tmp_path / "in_two_steps.yml"
    made: dict[str, Any] = {"ascend.pd_rollout.plan": {"fact": False}, "register": "pd_plan"}
    unwritten = {"ansible.builtin.assert": {"that": "pd_plan.directory is not exists"}}
    written = {"ascend.pd_rollout.plan": {"made": "{{ pd_plan }}"}}
    tasks = [{**task, "run_once": True} for task in (made, unwritten, written)]
    head = {"hosts": "prefiller:decoder:proxy", "gather_facts": False}
    playbook.write_text(yaml.safe_dump([{**head, "tasks": tasks}]), encoding="utf-8")
    done = play(guide, "-e", f"pd_plan_dir={tmp_path / 'in_two_steps'}", playbook=playbook)
    assert done.code == 0, done.text
    texts = [
        {path.relative_to(folder): path.read_text(encoding="utf-8") for path in folder.rglob("*.*")}
        for folder in (tmp_path / "at_once", tmp_path / "in_two_steps")
    ]
    assert texts[0] == texts[1]


def test_where_it_is_launched_is_noted_beside_the_plan(tmp_path: Path) -> None:
    guide = ROOT / "inventory" / "guide_1p1d"
    note = "ascend.pd_rollout.deployment_hosts"
    servers = "{{ ansible_play_hosts }}"
    tasks: list[dict[str, Any]] = [
        {"ascend.pd_rollout.plan": {"fact": False}, "register": "pd_plan"},
        {note: {"plan": "{{ pd_plan }}", "servers": servers}},
        {note: {"state": "absent", "servers": ["decode1"]}, "when": "stopped is defined"},
        {
            "ansible.builtin.assert": {"that": "pd_plan.outside == {}"},
        },
    ]
    playbook = tmp_path / "note.yml"
    head = {"hosts": "prefiller:decoder:proxy", "gather_facts": False}
    tasks = [{**task, "run_once": True} for task in tasks]
    playbook.write_text(yaml.safe_dump([{**head, "tasks": tasks}]), encoding="utf-8")
    noted = tmp_path / "plan" / "deployed.json"
    for more, known in (
        ((), ["prefill1", "prefill2", "decode1"]),
        (("-e", "stopped=1"), ["prefill1", "prefill2"]),
    ):
        done = play(guide, "-e", f"pd_plan_dir={noted.parent}", *more, playbook=playbook)
        assert done.code == 0, done.text
        assert list(json.loads(noted.read_text(encoding="utf-8"))["hosts"]) == known


def test_broken_inventory_gives_every_finding_and_writes_nothing(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    hosts = {
        "prefiller": {
            "hosts": {
                "p1": {"ansible_host": "198.51.100.1", "pd_engine_id": "0"},
                "p2": {"ansible_host": "{{ lost }}"},
            }
        },
        "decoder": {"hosts": {"d1": {"pd_engine_id": "0"}}},
        "proxy": {"hosts": {"p1": None}},
    }
    broken = {
        **GOOD_VARS,
        "pd_paralell": {"tensor": 8},
        "pd_plan_dir": str(tmp_path / "plan"),
        "pd_engine_args": {"cp-kv-cache-interleave-size": 64, "max-modellen": 3},
    }
    prefiller = {
        "pd_parallel": {"tensor": 16, "prefill_context": 2, "decode_context": 3},
        "pd_kv_port": 40000,
    }
    run = play(inventory(hosts, all=broken, prefiller=prefiller, decoder={"pd_kv_port": 40010}))
    assert run.code != 0
    for line in (
        "ERROR PD101  pd_paralell",
        "did you mean pd_parallel?",
        "ERROR PD104  p2 / ansible_host",
        "ERROR PD121  d1 / ansible_host",
        "ERROR PD211  prefiller / pd_parallel",
        "tp_size=16 must be divisible bydcp_size=3.",
        "did you mean max-model-len?",
        "ERROR PD405  prefiller / pd_engine_args",
        "WARNING PD508  d1 / decoder / pd_engine_id",
        "WARNING PD306  decoder / pd_kv_port",
    ):
        assert line in run.text, line
    assert re.search(r"\d+ errors in the inventory: PD101, PD104, PD121, PD211, PD401, PD405", run.text)
    assert "Traceback" not in run.text
    assert not (tmp_path / "plan").exists()
    # Five seconds is the promise; a machine busy with other tests gets more.
    assert run.seconds < 20


def test_a_role_without_hosts(inventory: Callable[..., Path]) -> None:
    run = play(inventory({"decoder": GOOD_HOSTS["decoder"], "proxy": {"hosts": {"d1": None}}}))
    assert run.code != 0
    assert "ERROR PD110  prefiller" in run.text


@pytest.mark.parametrize("playbook", ["plan", "check", "deploy"])
@pytest.mark.parametrize(
    "hosts",
    [
        {"prefiller": {"hosts": {}}, "decoder": {"hosts": {}}, "proxy": {"hosts": {}}},
        {"others": {"hosts": {}}},
    ],
)
def test_an_inventory_without_servers_fails(
    inventory: Callable[..., Path], hosts: dict[str, Any], playbook: str
) -> None:
    """Plays whose groups are empty match no host, and would end with 0."""
    run = play(inventory(hosts), playbook=ROOT / "playbooks" / f"{playbook}.yml")
    assert run.code != 0
    for line in ("ERROR PD110  decoder", "ERROR PD110  prefiller", "ERROR PD114  the whole inventory"):
        assert line in run.text


TWO_DEPLOYMENTS = {
    "prefiller": {"children": {"chat_p": {"hosts": {"a": {"ansible_host": "198.51.100.1"}}}, "code_p": None}},
    "decoder": {"children": {"chat_d": {"hosts": {"b": {"ansible_host": "198.51.100.2"}}}, "code_d": None}},
    "code_p": {"hosts": {"c": {"ansible_host": "198.51.100.3"}}},
    "code_d": {"hosts": {"d": {"ansible_host": "198.51.100.4"}}},
    "proxy": {"hosts": {"a": None, "c": None}},
    "chat": {"children": {"chat_p": None, "chat_d": None}, "vars": {"pd_deployment": "chat"}},
    "code": {"children": {"code_p": None, "code_d": None}, "vars": {"pd_deployment": "code"}},
}


def test_plans_of_all_deployments_are_written(inventory: Callable[..., Path], tmp_path: Path) -> None:
    where = tmp_path / "plans"
    run = play(inventory(TWO_DEPLOYMENTS), "-e", f"pd_plan_dir={where}")
    assert run.code == 0, run.text
    for name, host in (("chat", "a"), ("code", "c")):
        plan = json.loads((where / name / "plan.json").read_text(encoding="utf-8"))
        assert plan["deployment"] == name
        assert (where / name / host / f"{name}_p.sh").is_file()


def test_a_run_is_about_one_deployment(
    inventory: Callable[..., Path], facts: Callable[..., tuple[Run, dict[str, Any]]]
) -> None:
    run, plans = facts(inventory(TWO_DEPLOYMENTS))
    assert run.code != 0
    assert "--limit c,d   # code" in run.text
    assert not plans


def test_the_limit_chooses_the_deployment(inventory: Callable[..., Path], tmp_path: Path) -> None:
    where = tmp_path / "plans"
    run = play(inventory(TWO_DEPLOYMENTS), "--limit", "code", "-e", f"pd_plan_dir={where}")
    assert run.code == 0, run.text
    assert [path.name for path in where.iterdir()] == ["code"]


PLAYBOOK = """
- hosts: prefiller:decoder:proxy
  gather_facts: false
  tasks:
    - ascend.pd_rollout.plan:
        topology: {topology}
        fact: {fact}
      run_once: true
      register: {register}
    - ansible.builtin.copy:
        content: "{{{{ pd_plan | to_json }}}}"
        dest: "{out}/{{{{ inventory_hostname }}}}.json"
        mode: "0600"
      delegate_to: localhost
"""


@pytest.fixture
def facts(tmp_path: Path) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """What each host of the play has as pd_plan."""

    def make(inventory: Path, topology: str = "1P1D", fact: bool = True) -> tuple[Run, dict[str, Any]]:
        out = tmp_path / "facts"
        out.mkdir()
        playbook = tmp_path / "play.yml"
        content = PLAYBOOK.format(
            topology=topology, out=out, fact=fact, register="planned" if fact else "pd_plan"
        )
        playbook.write_text(content, encoding="utf-8")
        run = play(inventory, playbook=playbook)
        return run, {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.iterdir()}

    return make


@pytest.mark.parametrize("fact", [True, False], ids=["as a fact", "registered"])
def test_every_host_gets_the_plan(
    inventory: Callable[..., Path], facts: Callable[..., tuple[Run, dict[str, Any]]], fact: bool
) -> None:
    run, plans = facts(inventory(), fact=fact)
    assert run.code == 0, run.text
    assert set(plans) == {"p1", "d1"}
    assert plans["p1"] == plans["d1"]
    assert plans["p1"]["cluster"] == "testcluster"
    assert plans["d1"]["hosts"]["d1"]["engines"][0]["container"] == "pd-decoder"


def test_filters_take_the_registered_plan(tmp_path: Path) -> None:
    """Values of templates are containers of Ansible's own, which do not permit all that dicts do."""
    out = tmp_path / "requirements.json"
    playbook = tmp_path / "filters.yml"
    playbook.write_text(
        f"""\
- hosts: prefill1
  gather_facts: false
  tasks:
    - ascend.pd_rollout.plan:
        fact: false
      register: pd_plan
    - ansible.builtin.copy:
        content: >-
          {{{{ [pd_plan | ascend.pd_rollout.host_requirements(inventory_hostname),
             pd_plan | ascend.pd_rollout.reserved_ports(inventory_hostname)] | to_json }}}}
        dest: {out}
      delegate_to: localhost
      vars:
        ansible_connection: local
""",
        encoding="utf-8",
    )
    done = play(ROOT / "inventory" / "guide_1p1d", playbook=playbook)
    assert done.code == 0, done.text
    requirements, ports = json.loads(out.read_text(encoding="utf-8"))
    assert [one["title"] for one in requirements["serving"]] == ["node 0 of prefiller", "proxy"]
    assert requirements["serving"][1]["expect"] == {"prefill_instances": 1, "decode_instances": 1}
    assert "8004" in str(ports)


def test_another_topology_is_refused(
    inventory: Callable[..., Path], facts: Callable[..., tuple[Run, dict[str, Any]]]
) -> None:
    run, plans = facts(inventory(), topology="2P1D")
    assert run.code != 0
    assert "the inventory describes 1P1D, not 2P1D" in run.text
    assert not plans


def test_instances_on_one_host_have_variables_of_their_own(
    inventory: Callable[..., Path], facts: Callable[..., tuple[Run, dict[str, Any]]]
) -> None:
    """Ansible merges the variables of both groups for the host; each instance must see its own."""
    hosts = {
        "prefiller": {"hosts": {"a1": {"ansible_host": "198.51.100.1"}}},
        "decoder": {"children": {"dx": {"hosts": {"a1": None}}, "dy": {"hosts": {"a1": None}}}},
        "proxy": {"hosts": {"a1": None}},
    }
    run, plans = facts(
        inventory(
            hosts,
            prefiller={"pd_parallel": {"tensor": 8}, "pd_chips": "0-7"},
            decoder={"pd_parallel": {"tensor": 4}},
            dx={"pd_chips": "8-11", "pd_api_port": 8014},
            dy={"pd_chips": "12-15", "pd_api_port": 8024},
        ),
        topology="1P2D",
    )
    assert run.code == 0, run.text
    engines = {engine["instance"]: engine for engine in plans["a1"]["hosts"]["a1"]["engines"]}
    assert engines["prefiller"]["chips"] == list(range(8))
    assert engines["dx"]["chips"] == [8, 9, 10, 11]
    assert engines["dy"]["api"] == {"host": "198.51.100.1", "port": 8024}
    assert engines["prefiller"]["api"]["port"] == 8004


def test_a_secret_is_nowhere(inventory: Callable[..., Path], tmp_path: Path) -> None:
    where = tmp_path / "plan"
    run = play(
        inventory(all={**GOOD_VARS, "pd_api_key": "s3cret-key", "pd_plan_dir": str(where)}), "-vvv", "--diff"
    )
    assert run.code == 0, run.text
    written = "".join(path.read_text(encoding="utf-8") for path in where.rglob("*") if path.is_file())
    assert "s3cret-key" not in run.text + written
    assert "/run/secrets/pd_api_key" in written
