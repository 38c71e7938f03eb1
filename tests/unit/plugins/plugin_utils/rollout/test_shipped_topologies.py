# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Every shipped inventory plans as its topology wants it; the 2P1D one as its guide launches it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planner_promises
import pytest
import yaml
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import EVERYWHERE, ROOT, from_files
from test_guide import flags

INVENTORIES = sorted(path.parent.name for path in (ROOT / "inventory").glob("*/hosts.yml"))
GUIDE = yaml.safe_load(
    (Path(__file__).parent / "fixtures" / "guide_2p1d_v0.13.0.yml").read_text(encoding="utf-8")
)["nodes"]
# What the inventory adds to the guide, each with its reason in the profile.
ADDED_ENV = {"VLLM_HOST_IP", "HCCL_CONNECT_TIMEOUT", "MC_DISABLE_METACACHE"}

Plans = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("name", INVENTORIES)
def test_a_shipped_plan_keeps_its_promises(shipped_plan: Plans, name: str) -> None:
    planner_promises.check(shipped_plan(name))


@pytest.mark.parametrize("name", [name for name in INVENTORIES if name.startswith("atlas_")])
def test_what_is_recommended_has_nothing_to_warn_of(shipped_plan: Plans, name: str) -> None:
    """They still ask for a registry: that is for their user to fill in."""
    found = {f["code"] for f in shipped_plan(name)["findings"] if f["severity"] == "warning"}
    assert found <= {"PD601"}


@pytest.mark.parametrize(
    ("name", "topology", "sizes"),
    [
        ("atlas_a3_2p1d_external_dp", "2P1D", {"prefill_a": (8, 2), "prefill_b": (8, 2), "decode": (1, 32)}),
        ("atlas_a3_1p1d_dp2", "1P1D", {"prefiller": (8, 2), "decoder": (8, 2)}),
        ("atlas_a3_single_server", "1P1D", {"prefiller": (8, 1), "decoder": (8, 1)}),
        (
            "atlas_a3_2p2d",
            "2P2D",
            {"prefill_a": (16, 1), "prefill_b": (16, 1), "decode_a": (16, 1), "decode_b": (16, 1)},
        ),
    ],
)
def test_sizes(shipped_plan: Plans, name: str, topology: str, sizes: dict[str, tuple[int, int]]) -> None:
    plan = shipped_plan(name)
    assert plan["topology"] == topology
    assert {i["name"]: (i["parallel"]["tensor"], i["parallel"]["data"]) for i in plan["instances"]} == sizes
    used = {host: len(share["chips"]) for host, share in plan["hosts"].items()}
    assert set(used.values()) == {16}


EXAMPLES = re.findall(
    r"^```yaml\n(.*?)^```", (ROOT / "scripts" / "topologies_head.md").read_text(encoding="utf-8"), re.M | re.S
)


@pytest.mark.parametrize(
    ("example", "topologies"),
    list(zip(EXAMPLES, [["2P1D"], ["1P1D", "1P1D"], ["colocated"]], strict=True)),
)
def test_the_documents_examples_plan(tmp_path: Path, example: str, topologies: list[str]) -> None:
    # The last one is whole in itself.
    variables = {**EVERYWHERE, "pd_profile": "generic", "pd_parallel": {"tensor": 16}}
    if topologies == ["colocated"]:
        variables = {}
    (tmp_path / "hosts.yml").write_text(example, encoding="utf-8")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    (tmp_path / "group_vars" / "prefiller.yml").write_text(
        "pd_parallel: {tensor: 16, pipeline: 2}\n" if topologies == ["2P1D"] else "{}\n", encoding="utf-8"
    )
    plans = [plan.to_dict() for plan in planner.make_all(from_files(tmp_path)).values()]
    assert [plan["topology"] for plan in plans] == topologies
    for plan in plans:
        planner_promises.check(plan)


def launched(node: dict[str, Any], local: int) -> dict[str, str]:
    """What launch_online_dp.py fills in for one of its processes: $1 to $7."""
    given = node["launch"]
    size = int(given["tp-size"])
    return {
        "$1": ",".join(map(str, range(local * size, (local + 1) * size))),
        "$2": str(int(given["vllm-start-port"]) + local),
        "$3": given["dp-size"],
        "$4": str(int(given["dp-rank-start"]) + local),
        "$5": given["dp-address"],
        "$6": given["dp-rpc-port"],
        "$7": given["tp-size"],
    }


@pytest.mark.parametrize("host", list(GUIDE))
def test_the_2p1d_guide(shipped_plan: Plans, host: str) -> None:
    """Every rank gets the guide's environment and flags, from the addresses of the inventory."""
    plan = shipped_plan("atlas_a3_2p1d_external_dp")
    addresses = {GUIDE[name]["address"]: plan["hosts"][name]["address"] for name in GUIDE}
    node = GUIDE[host]
    (engine,) = plan["hosts"][host]["engines"]
    assert len(engine["ranks"]) == int(node["launch"]["dp-size-local"])
    for local, rank in enumerate(engine["ranks"]):
        filled = launched(node, local)

        def fill(value: Any, filled: dict[str, str] = filled) -> Any:
            value = filled.get(value, value) if isinstance(value, str) else value
            return addresses.get(value, value) if isinstance(value, str) else value

        env = {name: fill(value) for name, value in node["env"].items()}
        # Read by no code of this release; the interface is found on the server.
        wanted = {k: v for k, v in env.items() if k != "VLLM_USE_V1" and not k.endswith("_IFNAME")}
        got = {k: v for k, v in rank["env"].items() if k not in ADDED_ENV and not k.endswith("_IFNAME")}
        assert got == wanted
        want = {name: fill(value) for name, value in node["flags"].items()}
        found = flags(rank["argv"][3:])
        transfer, guides = found.pop("kv-transfer-config"), dict(want.pop("kv-transfer-config"))
        assert found == want
        # The module is registered by its name; ids and ports are those that stay when the cluster grows.
        guides.pop("kv_connector_module_path")
        guides |= {"engine_id": f"{engine['instance']}-0", "kv_port": "36100"}
        assert transfer == guides


def test_the_2p1d_guides_proxy(shipped_plan: Plans) -> None:
    plan = shipped_plan("atlas_a3_2p1d_external_dp")
    proxy = flags(plan["hosts"]["prefill1"]["proxy"]["argv"])
    start = int(GUIDE["decode1"]["launch"]["vllm-start-port"])
    assert proxy["decoder-ports"] == [str(start + i) for i in range(16)] * 2
    assert proxy["prefiller-ports"] == [str(start), str(start + 1)] * 2
    assert proxy["prefiller-hosts"] == [
        plan["hosts"][host]["address"] for host in ("prefill1", "prefill1", "prefill2", "prefill2")
    ]
