"""The simulator's servers, as far as no Docker Engine is needed: addresses, weights, inventories, faults."""

from __future__ import annotations

import importlib
import io
import json
import re
import struct
import sys
import tarfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def module(name: str) -> ModuleType:
    """A module of the simulator, which is no installed package."""
    for folder in (str(ROOT / "simulator"), str(ROOT)):
        if folder not in sys.path:
            sys.path.append(folder)
    return importlib.import_module(f"pdsim.{name}")


def a_server(name: str = "prefill1", index: int = 0, **others: Any) -> Any:
    """A server of the simulator."""
    usual = {
        "address": f"10.213.1.{11 + index}",
        "interface": "eth0",
        "chips": 16,
        "model_path": "/root/.cache/m",
    }
    return module("server").Server(**{"name": name, "index": index, **usual, **others})


# Addresses


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["192.0.0.1", "192.0.0.3"], "192.0.0.0/24"),
        (["10.1.0.4", "10.1.1.4"], "10.1.0.0/23"),
        (["10.1.0.4", "10.1.200.4"], "10.1.0.0/16"),
    ],
)
def test_a_fixed_inventory_gets_the_network_that_holds_it(addresses: list[str], expected: str) -> None:
    found = module("network").covering([IPv4Address(one) for one in addresses])
    assert found == IPv4Network(expected)


def test_addresses_all_over_the_place_are_refused_in_one_sentence() -> None:
    with pytest.raises(module("ui").SimError, match="do not fit into one network"):
        module("network").covering([IPv4Address("10.1.0.1"), IPv4Address("172.16.0.1")])


def test_the_machine_takes_an_address_that_no_server_has() -> None:
    subnet = IPv4Network("192.0.0.0/24")
    taken = [IPv4Address(f"192.0.0.{n}") for n in (1, 2, 254)]
    assert module("network").gateway(subnet, taken) == IPv4Address("192.0.0.253")
    assert module("network").gateway(subnet, taken[1:]) == IPv4Address("192.0.0.1")


def test_a_network_of_own_choice_keeps_clear_of_routes_and_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    network = module("network")
    monkeypatch.setattr(network, "docker_networks", dict)
    monkeypatch.setattr(network, "host_routes", list)
    first = network.choose_prefix("demo")
    assert network.choose_prefix("demo") == first
    assert network.choose_prefix("other") != first
    monkeypatch.setattr(network, "host_routes", lambda: [IPv4Network(f"{first}.128/25")])
    second = network.choose_prefix("demo")
    assert second != first
    monkeypatch.setattr(network, "docker_networks", lambda: {"net": [IPv4Network(f"{second}.0/24")]})
    assert network.choose_prefix("demo") not in (first, second)


def test_a_network_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = module("network")
    addresses = [IPv4Address("192.0.0.1")]
    subnet = IPv4Network("192.0.0.0/24")
    monkeypatch.setattr(network, "docker_networks", lambda: {"theirs": [IPv4Network("192.0.0.0/16")]})
    with pytest.raises(module("ui").SimError, match="Docker network theirs"):
        network.create("guide", subnet, addresses)
    monkeypatch.setattr(network, "docker_networks", dict)
    monkeypatch.setattr(network, "host_routes", lambda: [IPv4Network("192.0.0.0/23")])
    with pytest.raises(module("ui").SimError, match=r"own route to 192\.0\.0\.0/23"):
        network.create("guide", subnet, addresses)


# Weights


def test_every_shard_of_the_index_is_there_and_valid() -> None:
    weights = module("weights")
    files = weights.files()
    index = json.loads(files[weights.INDEX])
    shards = {name for name in files if name.endswith(".safetensors")}
    assert set(index["weight_map"].values()) == shards
    assert len(shards) == weights.SHARDS == 163
    total = 0
    for shard in shards:
        (length,) = struct.unpack("<Q", files[shard][:8])
        header = json.loads(files[shard][8 : 8 + length])
        header.pop("__metadata__")
        assert set(header) == {name for name, place in index["weight_map"].items() if place == shard}
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        assert len(files[shard]) == 8 + length + end
        total += end
    assert index["metadata"]["total_size"] == total


def test_the_weights_come_as_from_the_modelscope_with_float16() -> None:
    files = module("weights").files()
    assert json.loads(files["config.json"])["torch_dtype"] == "float16"
    assert any(
        name.startswith("model.layers.61.") for name in json.loads(files[module("weights").DESCRIPTION])
    )


# Servers


def test_chips_of_all_servers_are_told_apart() -> None:
    server = module("server")
    servers = [a_server(f"s{n}", n) for n in range(3)]
    facts = [server.facts(one, servers) for one in servers]
    for key in ("sdid", "vnic_ip", "ip"):
        values = [chip[key] for one in facts for chip in one["chip"]]
        assert len(set(values)) == 48
    assert facts[0]["peers"] == facts[2]["peers"]
    assert facts[0]["peers"]["192.168.2.16"] == "10.213.1.13"


def test_the_super_pod_device_id_is_put_together_as_by_the_driver() -> None:
    # docs/upstream-facts.md, "HCCN and NPU tools": server index 4 shows SDID 16777216 for its first chip.
    assert module("server").sdid(a_server(index=4), 0) == 16777216


def test_an_inventory_may_change_what_a_server_says_of_itself() -> None:
    changed = a_server(settings={"super_pod_id": 7, "timing": {"load_seconds": 1}})
    facts = module("server").facts(changed, [changed])
    assert facts["super_pod_id"] == 7
    assert facts["timing"]["load_seconds"] == 1
    assert facts["timing"]["query_seconds"] == 0.05


def test_secrets_on_the_disk_are_for_root_only(tmp_path: Path) -> None:
    server = module("server")
    key = tmp_path / "key"
    key.write_text("private")
    key.with_suffix(".pub").write_text("public")
    one = a_server(model_path=None)
    disk = server.disk(one, server.facts(one, [one]), key, "ssh-ed25519 AAAA")
    with tarfile.open(fileobj=io.BytesIO(disk)) as tar:
        modes = {entry.name: entry.mode for entry in tar.getmembers()}
    assert modes["etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert modes["root/.ssh"] == 0o700
    assert modes["usr/local/Ascend/driver/tools/hccn_tool"] == 0o755
    assert not {"", "etc", "root", "usr/local"} & set(modes)


# Inventories


def test_the_derived_inventory_differs_only_in_how_hosts_are_reached(tmp_path: Path) -> None:
    inventory = module("inventory")
    source = tmp_path / "mine"
    (source / "host_vars").mkdir(parents=True)
    (source / "group_vars").mkdir()
    (source / "hosts.yml").write_text("all: {hosts: {a: {ansible_host: gateway.example}, b: }}\n")
    (source / "host_vars" / "a.yml").write_text("pd_node_ip: 192.0.0.1\nansible_port: 2222\n")
    (source / "group_vars" / "all.yml").write_text("pd_release: v0.13.0\n")
    servers = [a_server("a", 0, address="192.0.0.1"), a_server("b", 1, address="192.0.0.2")]
    described = inventory.Described(servers, own_network=False, addressed=frozenset())
    derived = inventory.derive(source, described, "10.213.1", tmp_path / "state")
    assert (derived / "hosts.yml").read_text() == (source / "hosts.yml").read_text()
    assert (derived / "group_vars" / "all.yml").exists()
    # A folder of variables hides a file of the same name: the file has to be in the folder, and before ours.
    assert sorted(path.name for path in (derived / "host_vars" / "a").iterdir()) == [
        "inventory.yml",
        "zz_simulated.yml",
    ]
    reached = yaml.safe_load((derived / "host_vars" / "a" / "zz_simulated.yml").read_text())
    assert (reached["ansible_host"], reached["ansible_port"]) == ("192.0.0.1", 22)
    assert "StrictHostKeyChecking=yes" in reached["ansible_ssh_common_args"]
    assert not any(name.startswith("pd_") for name in reached)


def test_any_shipped_inventory_is_read_without_contacting_a_host() -> None:
    inventory = module("inventory")
    guide = inventory.describe(ROOT / "inventory" / "guide_1p1d", "10.213.1")
    assert not guide.own_network
    assert [one.address for one in guide.servers] == ["192.0.0.1", "192.0.0.2", "192.0.0.3"]
    simulated = inventory.describe(ROOT / "inventory" / "simulated_1p1d", "10.213.1")
    assert simulated.own_network
    assert [one.address for one in simulated.servers] == [f"10.213.1.{n}" for n in (11, 12, 13)]
    assert all(one.chips == 16 for one in simulated.servers)


def test_hosts_without_an_address_get_one(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: , b: {pd_interface: bond0, sim_weights: false}}}\n")
    found = module("inventory").describe(tmp_path, "10.213.1")
    assert [one.address for one in found.servers] == ["10.213.1.11", "10.213.1.12"]
    assert [one.interface for one in found.servers] == ["eth0", "bond0"]
    assert [bool(one.model_path) for one in found.servers] == [True, False]


def test_the_kind_of_the_servers_decides_chips_and_image(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {a: {pd_server: atlas-a2}, b: , c: {pd_chips_per_node: 8, pd_release: v0.18.0}}}\n"
    )
    servers = module("inventory").describe(tmp_path, "10.213.1").servers
    images = module("images")
    assert [(one.chips, images.engine_reference(one.engine)) for one in servers] == [
        (8, "ascend/vllm-ascend:v0.13.0"),
        (16, "ascend/vllm-ascend:v0.13.0-a3"),
        (8, "ascend/vllm-ascend:v0.18.0-a3"),
    ]
    assert [module("server").facts(one, servers)["soc"] for one in servers] == [
        "Ascend910B3",
        "Ascend910_9391",
        "Ascend910_9391",
    ]
    assert len({images.engine_folder(one.engine) for one in servers}) == 3


def test_an_inventory_may_name_packages(tmp_path: Path) -> None:
    images, inventory = module("images"), module("inventory")
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all: {hosts: {a: , b: {sim_packages: [keepalived, haproxy]}, c: {sim_packages: []}}}\n")
    servers = inventory.describe(tmp_path, "10.213.1").servers
    assert [one.packages for one in servers] == [(), ("haproxy", "keepalived"), ()]
    names = [images.server_image(one.image, one.packages) for one in servers]
    assert names[0] == names[2] == images.server_image()
    # One that is made from another one's is found by its name.
    assert names[1].startswith(f"{names[0]}-")
    assert images.server_image("server", ("haproxy",)) not in names


@pytest.mark.parametrize("packages", ["haproxy", "[haproxy; reboot]", "[--purge]", "{haproxy: }"])
def test_what_cannot_be_a_list_of_packages_is_refused(tmp_path: Path, packages: str) -> None:
    (tmp_path / "hosts.yml").write_text(f"all: {{hosts: {{a: {{sim_packages: {packages}}}}}}}\n")
    with pytest.raises(module("ui").SimError, match=r"host a: sim_packages is .*, not a list of packages"):
        module("inventory").describe(tmp_path, "10.213.1")


# How servers boot


def laid_out(one: Any, tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    """The files of a server's disk by their paths."""
    server = module("server")
    key = tmp_path / one.name
    key.write_text(f"private key of {one.name}")
    key.with_suffix(".pub").write_text("public")
    content = server.disk(one, server.facts(one, [one]), key, "ssh-ed25519 AAAA")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {entry.name: entry for entry in tar.getmembers()}


def test_a_server_boots_systemd_without_what_a_container_does_not_need(tmp_path: Path) -> None:
    files = laid_out(a_server(model_path=None), tmp_path)
    units = "etc/systemd/system"
    assert files[f"{units}/systemd-udevd.service"].linkname == "/dev/null"
    for unit in ("pd-sim-boot.service", "pd-sim-served.service"):
        assert files[f"{units}/multi-user.target.wants/{unit}"].linkname == f"../{unit}"
        assert f"{units}/{unit}" in files
    assert files["opt/pd-sim/init"].mode == 0o755


def test_each_server_has_a_machine_id_of_its_own(tmp_path: Path) -> None:
    server = module("server")
    found = []
    for name in ("a", "b", "a"):
        disk = server.Disk()
        key = tmp_path / name
        key.write_text(f"private key of {name}")
        server.boot(disk, a_server(name), key)
        with tarfile.open(fileobj=io.BytesIO(disk.bytes())) as tar:
            content = tar.extractfile("etc/machine-id")
            assert content is not None
            found.append(content.read().decode())
    assert all(re.fullmatch(r"[0-9a-f]{32}\n", one) for one in found)
    assert found[0] == found[2] != found[1]


def test_no_server_sees_the_control_groups_of_the_machine() -> None:
    server = module("server")
    options = [*server.start_options("c", "v", Path("/images")), *server.boot_options("server")]
    assert options[options.index("--cgroupns") + 1] == "private"
    assert not any(option.startswith("/sys/fs/cgroup") for option in options)


def test_a_controller_boots_without_systemd(tmp_path: Path) -> None:
    files = laid_out(a_server(model_path=None, image="controller"), tmp_path)
    assert "etc/machine-id" not in files
    assert module("server").boot_options("controller") == []
    assert files[module("server").BOOT["controller"].lstrip("/")].mode == 0o755


# The engine's image


def test_the_engine_image_has_of_a_routers_launcher_what_the_real_one_has() -> None:
    pins = module("images").ENGINE_WHEELS.read_text().splitlines()
    names = {line.partition("==")[0].lower().replace("_", "-") for line in pins if "==" in line}
    assert {"aiohttp", "fastapi", "requests", "setproctitle", "uvicorn"} <= names
    # vLLM's requirements/common.txt does not bring it: who needs it has to bring it along.
    assert "orjson" not in names


# Faults


def test_every_fault_is_listed_once_with_what_it_shows() -> None:
    parts = module("faults").table()
    names = [name for faults in parts.values() for name in faults]
    assert len(names) == len(set(names))
    assert {"hccn_conf_missing", "link_down", "engine_crash_start"} <= set(names)
    assert all(summary and "\n" not in summary for faults in parts.values() for _, summary in faults.values())


def test_parameters_of_faults_are_json_or_text() -> None:
    found = module("faults").parse(["chips=[3,4]", "seconds=2.5", "value=Fault", "to=10.0.0.1"])
    assert found == {"chips": [3, 4], "seconds": 2.5, "value": "Fault", "to": "10.0.0.1"}
    with pytest.raises(module("ui").SimError, match="key=value"):
        module("faults").parse(["chips"])
