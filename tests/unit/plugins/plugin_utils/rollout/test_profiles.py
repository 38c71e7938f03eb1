# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Profiles: each plans in the topology it is meant for on every release, and every level can change it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import ERROR
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.profiles import load_profile
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import release_names
from planner_inventories import findings, many

# Parallel sizes of a prefiller on one server and a decoder on two, as the profile's guide has them.
MEANT_FOR = {
    "deepseek-v3.1-w8a8": ({"tensor": 16}, {"tensor": 16, "data": 2}),
    "deepseek-v3.1-w8a8-guide": ({"tensor": 16}, {"tensor": 16, "data": 2}),
    "deepseek-r1-w8a8": ({"tensor": 8, "data": 2}, {"tensor": 1, "data": 32}),
    "qwen3-235b-a22b-w8a8": ({"tensor": 8, "data": 2}, {"tensor": 4, "data": 8}),
    "generic": ({"tensor": 8, "data": 2}, {"tensor": 4, "data": 8}),
}


def cluster(
    profile: str,
    release: str,
    everywhere: dict[str, Any] | None = None,
    prefiller: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    hosts: dict[str, dict[str, Any]] | None = None,
) -> Any:
    sizes = MEANT_FOR[profile]
    return many(
        {
            "prefiller": [("p", ["a"], {"pd_parallel": sizes[0], **(prefiller or {})})],
            "decoder": [("d", ["b", "c"], {"pd_parallel": sizes[1], **(decoder or {})})],
        },
        hosts=hosts,
        everywhere={
            "pd_release": release,
            "pd_image": f"registry.example/vllm-ascend:{release}-a3",
            "pd_profile": profile,
            **(everywhere or {}),
        },
    )


@pytest.mark.parametrize("release", release_names())
@pytest.mark.parametrize("profile", sorted(MEANT_FOR))
def test_a_profile_plans_where_it_is_meant_for(profile: str, release: str) -> None:
    found = findings(cluster(profile, release))
    assert not [f for f in found if f.severity == ERROR]


@pytest.mark.parametrize("release", release_names())
@pytest.mark.parametrize("profile", sorted(set(MEANT_FOR) - {"deepseek-v3.1-w8a8-guide"}))
def test_a_recommended_profile_gives_no_cause_for_advice(profile: str, release: str) -> None:
    """What the rules warn of about flags and environment, our own profiles do not do."""
    advised = {f.code for f in findings(cluster(profile, release)) if f.code[2] in "46"}
    assert advised <= {"PD607"}


def test_roles_and_releases_differ() -> None:
    old, new = (load_profile("qwen3-235b-a22b-w8a8", release) for release in ("v0.13.0", "v0.23.0"))
    assert old.roles["prefiller"].env["VLLM_ASCEND_ENABLE_FUSED_MC2"] == "2"
    assert "VLLM_ASCEND_ENABLE_FUSED_MC2" not in new.roles["prefiller"].env
    assert new.roles["prefiller"].args["additional-config"]["enable_fused_mc2"] == 1
    assert new.roles["decoder"].args["additional-config"]["enable_fused_mc2"] == 2
    assert load_profile("deepseek-r1-w8a8", "v0.23.0").roles["prefiller"].args["additional-config"] == {
        "enable_shared_expert_dp": True
    }


def test_every_level_changes_the_profile() -> None:
    """Cluster, role or instance, and for the environment a host: the nearer one wins."""
    raw = cluster(
        "deepseek-r1-w8a8",
        "v0.13.0",
        everywhere={"pd_engine_env": {"HCCL_BUFFSIZE": "300"}, "pd_engine_args": {"seed": 1}},
        decoder={"pd_engine_args": {"seed": 2, "max_num_seqs": 41}},
        hosts={"a": {"pd_engine_env": {"HCCL_BUFFSIZE": "301"}}},
    )
    plan = planner.make(raw).to_dict()
    first = {host: plan["hosts"][host]["engines"][0] for host in ("a", "b")}
    assert first["a"]["env"]["HCCL_BUFFSIZE"] == "301"
    assert first["b"]["env"]["HCCL_BUFFSIZE"] == "300"

    def value(host: str, flag: str) -> str:
        argv = first[host]["argv"]
        return str(argv[argv.index(f"--{flag}") + 1])

    assert (value("a", "seed"), value("b", "seed")) == ("1", "2")
    assert (value("a", "max-num-seqs"), value("b", "max-num-seqs")) == ("8", "41")
