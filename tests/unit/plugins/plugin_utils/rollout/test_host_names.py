# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Names and paths of an inventory: what is harmless passes, what leads elsewhere is a finding."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import safe_paths
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import names, render
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import EVERYWHERE, findings, many, small

TP16 = {"pd_profile": "generic", "pd_parallel": {"tensor": 16}}
GOOD_NAMES = ["decoder", "P1.new", "a", "_x", "x-1_y.z", "0", "-x", "..", "x" * 200]
BAD_NAMES = ["../x", "a/b", "a b", "a\nreboot", "a;b", "a$b", "a'b", "ä", "x" * 201, "a\x1b[2J", ""]
GOOD_HOSTS = [
    "p1",
    "P1.example.org",
    "192.0.2.7",
    "2001:db8::1",
    "::1",
    "fe80::1%eth0",
    "root@node-7",
    "rack_3.node-1",
    "_gateway",
    "昇腾-1",
    "e\u0301cole",
    "x" * 200,
]
BAD_HOSTS = [
    "../x",
    "..",
    "a/b",
    "a b",
    "a\nb",
    "a;reboot",
    "$(reboot)",
    "a`b`",
    "-oProxyCommand=x",
    "a\\b",
    "a|b",
    "a<b",
    "a\x7f",
    "a\u202eb",
    "\ud800",
    "昇" * 67,
    "x" * 201,
]


def inventory(host: str = "b", instance: str = "d") -> Any:
    return many({"prefiller": [("p", ["a"], TP16)], "decoder": [(instance, [host], TP16)]})


def codes(raw: Any) -> set[str]:
    return {finding.code for finding in findings(raw) if finding.severity == "error"}


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: repr(name[:20]))
def test_names_of_instances(name: str, tmp_path: Any) -> None:
    plan = planner.make(inventory(instance=name)).to_dict()
    assert plan["hosts"]["b"]["engines"][0]["container"] == f"pd-{name}"
    render.write(tmp_path / "plan", plan, dry_run=False)
    assert (tmp_path / "plan" / "b" / f"{name}.sh").is_file()


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:20]))
def test_other_names_of_instances_are_findings(name: str) -> None:
    found = [f for f in findings(inventory(instance=name)) if f.code == "PD130"]
    assert [f.seen for f in found] == [repr(name)[:199] + "…" if len(name) > 198 else repr(name)]
    assert all(str(f.instance).isprintable() and f.message.isprintable() for f in found)


@pytest.mark.parametrize("host", GOOD_HOSTS, ids=lambda host: repr(host[:20]))
def test_names_of_hosts(host: str, tmp_path: Any) -> None:
    plan = planner.make(inventory(host)).to_dict()
    render.write(tmp_path / "plan", plan, dry_run=False)
    assert (tmp_path / "plan" / host / "d.sh").is_file()


@pytest.mark.parametrize("host", BAD_HOSTS, ids=lambda host: repr(host[:20]))
def test_other_names_of_hosts_are_findings(host: str) -> None:
    found = [f for f in findings(inventory(host)) if f.code == "PD117"]
    assert len(found) == 1
    assert str(found[0].host).isprintable()
    assert found[0].message.isprintable()


def test_no_instance_takes_the_name_of_the_proxy() -> None:
    assert "PD116" in codes(inventory(instance="proxy"))
    assert "PD116" not in codes(inventory(instance="proxy2"))


@pytest.mark.parametrize("name", ["pd", "PD", "Chat-v3.1_b", "0", "x" * 63])
def test_names_of_deployments(name: str) -> None:
    plan = planner.make(small({"pd_deployment": name})).to_dict()
    assert plan["hosts"]["d1"]["engines"][0]["container"] == f"{name}-decoder"
    assert safe_paths.name(name, "x") == name


@pytest.mark.parametrize("name", ["", "..", "../../root/x", "a/b", "-a", ".a", "a b", "ä", "a\n", "x" * 64])
def test_other_names_of_deployments_are_findings(name: str) -> None:
    assert [f.variable for f in findings(small({"pd_deployment": name})) if f.code == "PD102"] == [
        "pd_deployment"
    ]


PATHS = ["/etc/pd_rollout", "/opt", "/srv/", "/data//x", "/root/.cache/a b", "/mnt/v1..2", "/data/文件"]
# Weights in memory are loaded fast.
PATHS += ["/dev/shm/DeepSeek-V3.1", "/dev/shm/models/x"]
NO_PATHS = [
    "/",
    "//",
    "/etc",
    "/usr/",
    "/./etc",
    "/proc/1",
    "/dev/shm",
    "/dev/disk/x",
    "/dev/shm2/x",
    "/var/lib",
    "/..",
    "/../x",
    "/a/..",
    "/a/../b",
    "x/y",
]
NO_PATHS += ["", "~/x", "/a\nb", "/a\x7f", "/a:b", "/a,b", "/\ud800"]


@pytest.mark.parametrize("variable", ["pd_host_dir", "pd_model_path"])
def test_paths_on_servers(variable: str) -> None:
    for path in PATHS:
        assert not [f for f in findings(small({variable: path})) if f.severity == "error"], path
    for path in NO_PATHS:
        found = [f for f in findings(small({variable: path})) if f.severity == "error"]
        assert [f.variable for f in found] == [variable], path


def test_what_is_done_without_a_plan_is_judged_alike() -> None:
    assert safe_paths.NAME.pattern == names.DEPLOYMENT
    assert safe_paths.SYSTEM.pattern == names.SYSTEM


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Answers with the Authorization that it has read."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers.get("Authorization", "").encode("latin-1"))

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield "127.0.0.1", listening.server_port
        listening.shutdown()
        thread.join()


def test_keys_that_pass_come_through_a_header(server: tuple[str, int]) -> None:
    key = "".join(map(chr, range(0x21, 0x7F)))
    assert not [f for f in findings(small({"pd_api_key": key})) if f.severity == "error"]
    connection = http.client.HTTPConnection(*server)
    connection.request("GET", "/", headers={"Authorization": f"Bearer {key}"})
    assert connection.getresponse().read() == f"Bearer {key}".encode()
    connection.close()


@pytest.mark.parametrize(
    "key",
    ["schlüssel", "密钥", "a b", " a", "a\n", "a\rb", "a\tb", "a\x00", "a\x7f", "a\u00a0b", 12345, ["a"]],
    ids=repr,
)
def test_keys_that_no_header_can_hold_are_findings_that_do_not_show_them(key: Any) -> None:
    (found,) = [f for f in findings(small({"pd_api_key": key})) if f.severity == "error"]
    assert (found.code, found.variable, found.seen) == ("PD102", "pd_api_key", "(not shown)")
    assert repr(key) not in str(found)


def test_http_client_cannot_even_send_some_of_them(server: tuple[str, int]) -> None:
    for key in ("密钥", "a\nb"):
        with pytest.raises(ValueError):
            http.client.HTTPConnection(*server).request(
                "GET", "/", headers={"Authorization": f"Bearer {key}"}
            )


def test_text_of_the_inventory_cannot_leave_its_place() -> None:
    """The name of the cluster is that of a directory, and the model's is free."""
    raw = small({**EVERYWHERE, "pd_served_model_name": "a|b<script>&`]]>'\"$(x)"})
    object.__setattr__(raw, "cluster", "my\x01 clu|ster\n# <b>")
    plan = planner.make(raw).to_dict()
    files = render.files(plan)
    assert "<script" not in files["topology.svg"]
    assert "\x01" not in files["topology.svg"]
    assert files["topology.md"].startswith("# my  clu|ster # &lt;b>: 1P1D\n")
    for name, text in files.items():
        if name.endswith(".sh"):
            comments = [line for line in text.splitlines() if line.startswith("#")]
            assert all(re.fullmatch(r"#(!/usr/bin/env bash| [A-Za-z0-9 ,.:'_-]+)", line) for line in comments)
