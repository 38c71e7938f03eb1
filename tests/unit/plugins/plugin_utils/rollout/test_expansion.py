# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Values of pd_engine_env mean what they say in bash, or are refused: the scripts are run by a real bash."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import expansion
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import codes, findings, many, small

NIC_VARIABLES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
# Not set in it: HELLO, LD_PRELOAD.
IMAGE = {"PATH": os.defpath, "LD_LIBRARY_PATH": "/image/lib", "EMPTY": ""}


def in_bash(script: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that a script leaves behind."""
    done = subprocess.run(
        ["bash", "-c", f"{script}\nenv -0"], env=dict(environment), capture_output=True, text=True, check=True
    )
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)


def engine_of(env: Mapping[str, Any], host: str = "d1", **variables: Any) -> dict[str, Any]:
    raw = small({"pd_engine_env": dict(env), "pd_interface": "lo", **variables})
    (engine,) = planner.make(raw).to_dict()["hosts"][host]["engines"]
    return dict(engine)


def exported(engine: Mapping[str, Any], environment: Mapping[str, str] = IMAGE) -> dict[str, str]:
    """What a launch script exports, without the start of the engine."""
    before, start, _ = engine["script"].partition("exec vllm serve")
    assert start
    return in_bash(before, environment)


@pytest.mark.parametrize(
    "value",
    [
        "/usr/local/lib/mooncake:$LD_LIBRARY_PATH",
        "$LD_LIBRARY_PATH:/usr/local/lib",
        "/a:${LD_LIBRARY_PATH}:/b",
        "/a:${LD_LIBRARY_PATH}b",
        "/a${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}",
        "/a${HELLO:+:$HELLO}",
        "/a:$HELLO",
        "$HELLO",
        "${HELLO:-/default of/$LD_LIBRARY_PATH}",
        "${HELLO-unset}",
        "${EMPTY-unset}",
        "${EMPTY:-empty}",
        "${EMPTY+set}",
        "${EMPTY:+full}",
        "${HELLO:-${EMPTY:-inner}}",
        "${LD_LIBRARY_PATH:?must be set}",
        r"\$HELLO costs 5\$",
        r"\`date\` \\$LD_LIBRARY_PATH \\\$LD_LIBRARY_PATH",
        "$ 5$ $. $% a$/b",
        "it's $LD_LIBRARY_PATH; * ~ & | < > # ! {a,b} [x] (y) ü",
        "}{ $LD_LIBRARY_PATH }",
    ],
)
def test_a_value_is_what_a_line_of_a_shell_makes_of_it(value: str) -> None:
    line = in_bash(f'export VALUE="{value}"', IMAGE)["VALUE"]
    assert exported(engine_of({"VALUE": value}))["VALUE"] == line


@pytest.mark.parametrize("value", ['say "$LD_LIBRARY_PATH"', r"C:\dir\$LD_LIBRARY_PATH", r"a\b\\c", '"', "'"])
def test_quotes_and_backslashes_of_a_value_are_its_own(value: str) -> None:
    wanted = value.replace(r"\$", "$") if r"\$" in value else value.replace("$LD_LIBRARY_PATH", "/image/lib")
    assert exported(engine_of({"VALUE": value}))["VALUE"] == wanted


def test_the_script_knows_addresses_nic_and_what_it_has_exported() -> None:
    env = {
        # Refers to what stands behind it.
        "FIRST": "$SECOND/x",
        "SECOND": "${local_ip}:18481",
        "THIRD": "tcp://$master_addr:${PORT_OF_IT}",
        "PORT_OF_IT": 5000,
        "NICS": "$nic_name,$HCCL_SOCKET_IFNAME",
    }
    for host, address in (("p2", "198.51.100.2"), ("d1", "198.51.100.3")):
        engine = engine_of(env, host)
        head = "198.51.100.1" if host == "p2" else address
        wanted = {
            "FIRST": f"{address}:18481/x",
            "SECOND": f"{address}:18481",
            "THIRD": f"tcp://{head}:5000",
            "NICS": "lo,lo",
        }
        got = exported(engine)
        assert {name: got[name] for name in wanted} == wanted
        # The plan says the same.
        assert {name: engine["env"][name] for name in wanted} == wanted


def test_the_plan_leaves_open_what_only_the_image_knows() -> None:
    env = engine_of({"LD_LIBRARY_PATH": "/a:$LD_LIBRARY_PATH", "X": "${HOME}er:$local_ip"})["env"]
    assert env["LD_LIBRARY_PATH"] == "/a:$LD_LIBRARY_PATH"
    assert env["X"] == "${HOME}er:198.51.100.3"


def test_the_image_keeps_its_libraries_and_the_profile_adds_its_own() -> None:
    got = exported(
        engine_of({"LD_LIBRARY_PATH": "/mooncake:$LD_LIBRARY_PATH", "LD_PRELOAD": "/j.so:$LD_PRELOAD"})
    )
    assert got["LD_LIBRARY_PATH"] == "/mooncake:/image/lib:/usr/local/lib:/usr/local/lib64"
    assert got["LD_PRELOAD"] == "/j.so:"


def test_the_nic_is_looked_for_where_a_part_of_a_value_needs_it() -> None:
    env = {"NICS": "=$nic_name", **dict.fromkeys(NIC_VARIABLES)}
    assert "the interface that holds the address" in engine_of(env, pd_interface=...)["script"]
    assert "the interface that holds" not in engine_of({**env, "NICS": "x"}, pd_interface=...)["script"]


def test_text_without_references_is_written_as_before() -> None:
    script = engine_of({"VALUE": "a b\\c"})["script"]
    assert "export VALUE='a b\\c'" in script
    assert "export HCCL_IF_IP=$local_ip" in script


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("$(id)", "$(…)"),
        ("`id`", "`…`"),
        ("$((1+1))", "$((…))"),
        ("$[1+1]", "$[…]"),
        ("$_", "$_"),
        ("${_:-a}", "${_…}"),
        ("pa$$word", "$$"),
        ("$1", "$1"),
        ("$?", "$?"),
        ("${X%%:*}", "${X%…}"),
        ("${#X}", "${#…}"),
        ("${!X}", "${!…}"),
        ("${X:=a}", "${X:…}"),
        ("${X:1}", "${X:…}"),
        ("${X", "${X…"),
        ('${X:-"a"}', '"'),
        (r"${X:-\}}", r"\}"),
        (r"\\$(id)", "$(…)"),
    ],
)
def test_what_bash_would_run_or_cut_is_refused(value: str, seen: str) -> None:
    (finding, *_) = [f for f in findings(small({"pd_engine_env": {"VALUE": value}})) if f.code == "PD440"]
    assert finding.severity == "error"
    assert finding.seen == f"VALUE with {seen}"
    assert "\\$" in finding.cure


def test_a_secret_in_a_refused_value_is_not_shown() -> None:
    for value in (
        "http://user:s3cret$$@proxy",
        "${TOKEN:=s3cret}",
        "${TOKEN%s3cret",
        "`s3cret`",
        "$(s3cret)",
    ):
        found = findings(small({"pd_engine_env": {"PROXY": value}}))
        assert "PD440" in {f.code for f in found}
        assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("code", "broken", "kept"),
    [
        ("PD440", {"A": "$B", "B": "$A"}, {"A": "$B", "B": "$B"}),
        ("PD440", {"A": "$B", "B": "$C", "C": "x$A"}, {"A": "$B", "B": "$C", "C": "$C"}),
        ("PD440", {"A": "x$(id)"}, {"A": r"x\$(id)"}),
        ("PD441", {"A": "$LOCAL_IP"}, {"A": "$local_ip"}),
        ("PD441", {"A": "$B"}, {"A": "$B", "B": "1"}),
        ("PD441", {"A": "/a:$B"}, {"A": "/a:${B:-}"}),
        ("PD441", {"A": "$B"}, {"A": "$A:/a:$HOME:$LD_PRELOAD"}),
        ("PD442", {"UID": "0"}, {"UIDS": "0"}),
        ("PD442", {"local_ip": "198.51.100.77"}, {"local_ip": "$local_ip", "nic_name": "lo"}),
        ("PD442", {"master_addr": "198.51.100.77"}, {"MASTER_ADDR": "$master_addr"}),
        ("PD446", {"A": "~/a"}, {"A": "$HOME/a:x~"}),
        ("PD446", {"A": "/a:~/b"}, {"A": "~"}),
        ("PD443", {"LD_LIBRARY_PATH": "/a"}, {"LD_LIBRARY_PATH": "/a:$LD_LIBRARY_PATH"}),
        ("PD443", {"PATH": "/a"}, {"PATH": "/a:${PATH:-/bin}", "LD_PRELOAD": "/a"}),
        # Of a value that cannot be expanded PD440 speaks.
        ("PD443", {"PATH": "/a:$PATHS"}, {"PATH": "/a/$(uname -m):$PATH"}),
    ],
)
def test_rule_from_both_sides(code: str, broken: dict[str, str], kept: dict[str, str]) -> None:
    assert code in codes(small({"pd_engine_env": broken}))
    assert code not in codes(small({"pd_engine_env": kept}))


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("PD444", {"pd_engine_args": {"host": "$local_ip"}}),
        ("PD444", {"pd_engine_args": {"hf-overrides": {"a": ["http://${local_ip}:1"]}}}),
        ("PD444", {"pd_kv_extra_config": {"backend": "$nic_name"}}),
        ("PD445", {"pd_engine_args": {"tokenizer": "$MODEL_PATH"}}),
        ("PD445", {"pd_engine_args": {"seed": "$(date)"}}),
        ("PD445", {"pd_extra_mounts": ["/home/$USER"]}),
        ("PD445", {"pd_model_path": "/data/${MODEL}"}),
        ("PD445", {"pd_host_dir": "/opt/$CLUSTER"}),
        ("PD445", {"pd_image": "registry.example/vllm-ascend:$TAG"}),
    ],
)
def test_what_stays_as_it_stands_is_said(code: str, variables: dict[str, Any]) -> None:
    assert code in codes(small(variables))


def test_dollars_that_are_meant_disturb_nobody() -> None:
    schema = {
        "hf-overrides": {"$defs": {"$ref": "^a$"}},
        "tokenizer": "/m/$x",
        "chat-template": "{{ '$' }} `a` 5$",
    }
    assert not {"PD440", "PD444", "PD445"} & codes(small({"pd_engine_args": schema}))


def test_order_holds_however_long_the_chain() -> None:
    chain = {f"V{i}": f"$V{i + 1}" for i in range(1200)} | {"V1200": "end"}
    assert next(iter(expansion.ordered(chain))) == "V1200"
    assert expansion.circle(chain) == ()
    assert expansion.resolved(expansion.ordered(chain), {})["V0"] == "end"
    assert expansion.circle({**chain, "V1200": "$V0", "ASIDE": "$V3"})[0] in chain


@pytest.mark.parametrize(("depth", "refused"), [(10, False), (11, True), (5000, True)])
def test_braces_within_braces(depth: int, refused: bool) -> None:
    value = "${A:-" * depth + "x" + "}" * depth
    assert ("PD440" in codes(small({"pd_engine_env": {"VALUE": value}}))) is refused


def test_ranks_of_external_data_parallel_have_it_too() -> None:
    raw = many(
        {
            "prefiller": [("p", ["a"], {"pd_parallel": {"tensor": 16}})],
            "decoder": [("d", ["b"], {"pd_parallel": {"tensor": 8, "data": 2}, "pd_dp_mode": "external"})],
        },
        everywhere={"pd_engine_env": {"WORKER": "$local_ip:18481"}},
    )
    (engine,) = planner.make(raw).to_dict()["hosts"]["b"]["engines"]
    assert [rank["env"]["WORKER"] for rank in engine["ranks"]] == ["10.1.0.2:18481"] * 2
    assert 'export WORKER="${local_ip}:18481"' in engine["script"]
