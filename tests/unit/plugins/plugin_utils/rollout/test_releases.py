# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Releases as data: that every file is whole, and that the shipped inventories move between releases."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import data
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import ERROR
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.arguments import (
    COMPUTED_FLAGS,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.router import (
    UPSTREAM_COMPUTED,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.model import Parallel, canonical
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.profiles import (
    load_profile,
    profile_names,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
    standing,
)
from planner_inventories import ROOT, findings, shipped

V1, LAYERWISE = "MooncakeConnectorV1", "MooncakeLayerwiseConnector"
CONTEXT = Parallel(tensor=4, prefill_context=2)
GUIDE = Parallel(tensor=16, prefill_context=2)

RELEASES = release_names()
SHIPPED = sorted(path.parent.name for path in (ROOT / "inventory").glob("*/hosts.yml"))
SIMULATOR = ROOT / "simulator" / "engine" / "rootfs" / "opt" / "pd-sim-engine" / "data"


def moved(raw: RawInventory, **changes: Any) -> RawInventory:
    """The inventory with other values for some variables on every host; ... takes one away."""

    def changed(variables: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**variables, **changes}.items() if value is not ...}

    groups = tuple(
        replace(
            group,
            members=tuple(replace(member, variables=changed(member.variables)) for member in group.members),
        )
        for group in raw.groups
    )
    return replace(raw, groups=groups, hosts={host: changed(v) for host, v in raw.hosts.items()})


def test_releases_are_in_the_order_of_time() -> None:
    assert RELEASES[:3] == ("v0.13.0", "v0.18.0", "v0.23.0")


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_has_what_the_planner_writes(name: str) -> None:
    release = load_release(name)
    assert release.name == name
    assert name in release.image
    assert set(COMPUTED_FLAGS) <= release.options
    assert not release.idle_env & {"VLLM_HOST_IP"}
    assert {key.name for key in release.config_keys} <= release.additional_config
    for connector, options in release.proxy_options.items():
        assert connector in release.connectors
        assert set(UPSTREAM_COMPUTED) <= options.keys()


@pytest.mark.parametrize(("name", "options"), [("v0.13.0", 246), ("v0.18.0", 289), ("v0.23.0", 331)])
def test_every_long_option_is_known(name: str, options: int) -> None:
    """As many as the parser of that vLLM has; --help is the one that no inventory can set."""
    release = load_release(name)
    switches = len(release.switch_options)
    assert len(release.value_options) + 2 * switches + len(release.flag_options) + 1 == options


@pytest.mark.parametrize("name", RELEASES)
def test_the_short_form_is_that_of_the_simulated_parser(name: str) -> None:
    """Both are written by one script from one run of the real parser."""
    vllm = load_release(name).vllm
    full = SIMULATOR / f"vllm_serve_{vllm}.json"
    spec = importlib.util.spec_from_file_location("gen_vllm_args", ROOT / "scripts" / "gen_vllm_args.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    wanted = generator.short_form(json.loads(full.read_text(encoding="utf-8")))
    path = ROOT / "plugins" / "plugin_utils" / "rollout" / "data" / "vllm" / f"{vllm}.yml"
    assert path.read_text(encoding="utf-8") == wanted


@pytest.mark.parametrize("release_name", RELEASES)
@pytest.mark.parametrize("profile_name", profile_names())
def test_a_profile_is_of_the_release(profile_name: str, release_name: str) -> None:
    """No flag, variable or key that the release does not know, apart from those known to do nothing."""
    release, profile = load_release(release_name), load_profile(profile_name, release_name)
    assert profile.sources
    for role in profile.roles.values():
        assert set(role.flags) <= release.options
        ours = {name for name in role.env if name.startswith("VLLM_")}
        assert ours <= release.environment | release.idle_env
        assert set(role.args.get("additional-config", {})) <= release.additional_config
        if role.kv_module_path is not None:
            assert role.kv_module_path in {connector.module for connector in release.connectors.values()}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_inventory_moves_between_releases(name: str, release: str) -> None:
    """With the release's own image it plans on every release, and its scripts hold nothing that the release
    does not know."""
    plan = planner.make(moved(shipped(name), pd_release=release, pd_image=...)).to_dict()
    known = load_release(release)
    assert plan["release"]["name"] == release
    assert plan["image"].endswith(known.image)
    for host in plan["hosts"].values():
        for engine in host["engines"]:
            flags = {canonical(word[2:]) for word in engine["argv"] if word.startswith("--")}
            assert {
                flag.removeprefix("no-") if flag not in known.options else flag for flag in flags
            } <= known.options


@pytest.mark.parametrize("release", [name for name in RELEASES if name != "v0.13.0"])
@pytest.mark.parametrize("name", SHIPPED)
def test_only_the_image_must_change(name: str, release: str) -> None:
    """Moved with everything else as it stands, an inventory plans, or is told of the image that it pins."""
    raw = shipped(name)
    pinned = any("pd_image" in variables for variables in raw.hosts.values())
    errors = [f for f in findings(moved(raw, pd_release=release)) if f.severity == ERROR]
    assert [f.code for f in errors] == (["PD608"] if pinned else [])
    assert all(release in str(f.expected) for f in errors)


def test_what_a_later_release_changes_of_the_guide() -> None:
    def engines(release: str) -> tuple[dict[str, Any], dict[str, Any]]:
        plan = planner.make(moved(shipped("guide_1p1d"), pd_release=release)).to_dict()
        by_role = {e["role"]: e for host in plan["hosts"].values() for e in host["engines"]}
        return by_role["prefiller"], by_role["decoder"]

    for release, module, switch, recompute in [
        ("v0.13.0", True, True, False),
        ("v0.18.0", False, True, False),
        ("v0.23.0", False, False, True),
    ]:
        prefiller, decoder = engines(release)
        for engine in (prefiller, decoder):
            assert ("kv_connector_module_path" in engine["script"]) is module
            assert ("VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL" in engine["env"]) is switch
        assert ("recompute_scheduler_enable" in decoder["script"]) is recompute


@pytest.mark.parametrize(
    ("release", "name", "what", "gone", "comes", "instead"),
    [
        ("v0.18.0", "swap-space", "options", "v0.18.0", None, "nothing"),
        ("v0.23.0", "swap-space", "options", "v0.18.0", None, "nothing"),
        ("v0.23.0", "disable-frontend-multiprocessing", "options", "v0.23.0", None, "nothing"),
        ("v0.13.0", "moe-backend", "options", None, "v0.18.0", None),
        ("v0.23.0", "VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL", "environment", "v0.23.0", None, "prefill_context"),
        ("v0.13.0", "VLLM_ENGINE_READY_TIMEOUT_S", "environment", None, "v0.18.0", None),
        ("v0.13.0", "no-such-option", "options", None, None, None),
    ],
)
def test_where_an_unknown_name_stands(
    release: str, name: str, what: str, gone: str | None, comes: str | None, instead: str | None
) -> None:
    found = standing(load_release(release), name, what)
    assert (found.gone_since, found.comes_with) == (gone, comes)
    assert (instead or "") in (found.instead or "")


@pytest.mark.parametrize(
    ("connector", "release", "sizes", "expected"),
    [
        # The guide: context rank 0 on node 0, 1 on node 1.
        (V1, "v0.13.0", GUIDE, [(0, range(16)), (16, range(16, 32))]),
        (V1, "v0.23.0", GUIDE, [(0, range(16)), (16, range(16, 32))]),
        (V1, "v0.18.0", Parallel(tensor=4, pipeline=2), [(0, range(4)), (4, range(4, 8))]),
        (V1, "v0.13.0", Parallel(tensor=2, data=3), [(4, range(4, 6))]),
        (LAYERWISE, "v0.13.0", Parallel(tensor=4, data=2), [(4, range(4, 8))]),
        # Below v0.21 two context ranks want one port.
        (LAYERWISE, "v0.18.0", CONTEXT, [(0, range(4)), (4, range(4))]),
        (LAYERWISE, "v0.23.0", CONTEXT, [(0, range(4)), (4, range(4, 8))]),
    ],
)
def test_handshake_ports_follow_the_connector(
    connector: str, release: str, sizes: Parallel, expected: list[tuple[int, range]]
) -> None:
    known = load_release(release).connectors[connector]
    for first, offsets in expected:
        assert known.ports(30000, sizes, first, len(offsets)) == tuple(30000 + offset for offset in offsets)


def test_the_base_of_ascend_direct_moves_where_it_is_read() -> None:
    """From v0.18.0 on ASCEND_BASE_PORT moves the range away from the guide's own port."""
    env = {"ASCEND_BASE_PORT": "40000"}
    for release, warned in [("v0.13.0", True), ("v0.18.0", False), ("v0.23.0", False)]:
        found = findings(moved(shipped("guide_1p1d"), pd_release=release, pd_engine_env=env))
        assert ("PD302" in {f.code for f in found}) is warned
        assert not [f for f in found if f.severity == ERROR]


def test_a_new_release_is_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files more, and every shipped inventory plans on it, with the profiles and connectors of the latest
    release before it."""
    caches = (data.names, load_release, load_profile)
    folder = tmp_path / "data"
    shutil.copytree(data._ROOT, folder)
    for kind in ("releases", "environment"):
        text = (folder / kind / "v0.23.0.yml").read_text(encoding="utf-8")
        (folder / kind / "v0.99.0.yml").write_text(text.replace("v0.23.0", "v0.99.0"), encoding="utf-8")
    monkeypatch.setattr(data, "_ROOT", folder)
    for function in caches:
        function.cache_clear()
    try:
        assert release_names()[-1] == "v0.99.0"
        for name in SHIPPED:
            plan = planner.make(moved(shipped(name), pd_release="v0.99.0", pd_image=...)).to_dict()
            assert plan["release"]["name"] == "v0.99.0"
        assert load_release("v0.99.0").connectors == load_release("v0.23.0").connectors
        assert load_profile("generic", "v0.99.0") == load_profile("generic", "v0.23.0")
    finally:
        monkeypatch.undo()
        for function in caches:
            function.cache_clear()
