"""Who gets the weights, and who takes them from whom."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._weights.catalogue import WEIGHTS_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution import weights_chain as chain


def server(name: str, *codes: str, fingerprint: str = "one", files: tuple[str, ...] = ()) -> chain.Server:
    findings = [WEIGHTS_CHECKS.finding(code, path=f"/w/{name}", seen="seen", files=files) for code in codes]
    return chain.Server(name, fingerprint, tuple(findings))


A, B, C = server("a"), server("b", "weights-path-missing"), server("c", "weights-shard-missing")


@pytest.mark.parametrize(
    ("servers", "source", "named", "seed", "expected"),
    [
        ([A, server("b")], "server", {}, "", chain.Need()),
        ([A, B, C], "server", {}, "", chain.Need(("b", "c"), "a")),
        ([B, A], "modelscope", {"model_weights_id": "x/y"}, "", chain.Need(("b",), "a")),
        ([B, C], "modelscope", {"model_weights_id": "x/y"}, "", chain.Need(("b", "c"), "b", True)),
        ([B, C], "controller", {"model_weights_directory": "/w"}, "c", chain.Need(("b", "c"), "c", True)),
        ([A, server("d"), B], "server", {}, "d", chain.Need(("b",), "d")),
        # A seed that lacks them is not asked while another has them.
        ([A, B, C], "server", {}, "b", chain.Need(("b", "c"), "a")),
    ],
    ids=[
        "whole",
        "one has them",
        "no download then",
        "download",
        "controller",
        "named seed",
        "seed lacks them",
    ],
)
def test_who_gets_them(servers, source, named, seed, expected):
    assert chain.need(servers, source, named, seed) == expected


@pytest.mark.parametrize(
    ("servers", "source", "seed", "codes"),
    [
        ([B, C], "server", "", ["weights-no-source", "weights-path-missing", "weights-shard-missing"]),
        ([B], "huggingface", "", ["weights-source-unnamed"]),
        ([B], "controller", "", ["weights-source-unnamed"]),
        ([A, B], "server", "z", ["weights-seed-unknown"]),
        ([A, server("d", fingerprint="two")], "server", "", ["weights-differ"]),
        (
            [A, server("d", fingerprint="two"), server("e", "weights-unreadable", "weights-download-lock")],
            "server",
            "",
            ["weights-unreadable", "weights-download-lock", "weights-differ"],
        ),
    ],
    ids=["no source", "no id", "no directory", "unknown seed", "two models", "all at once"],
)
def test_what_stands_against_it(servers, source, seed, codes):
    assert [one.code for one in chain.need(servers, source, {}, seed).findings] == codes


def test_warnings_are_no_reason_to_copy():
    warned = WEIGHTS_CHECKS.finding("weights-tokenizer-missing", path="/w", severity="warning")
    assert chain.Server("a", "one", (warned,)).whole


def test_damaged_are_files_that_are_there():
    one = server("a", "weights-shard-missing", files=("gone",))
    two = server("a", "weights-shard-truncated", files=("short", "shorter"))
    assert chain.Server("a", "", one.findings + two.findings).damaged == ["short", "shorter"]


def test_each_takes_from_the_one_before_and_knows_others():
    wanted = [f"s{number}" for number in range(1, 8)]
    made = chain.chain(wanted, "s0", {name: [name] for name in ["s0", *wanted]})
    assert made.sources["s0"] == ()
    assert made.sources["s1"] == ("s0",)
    assert made.sources["s3"] == ("s2", "s1", "s0")
    assert made.sources["s7"] == ("s6", "s5", "s4", "s0")
    assert made.clients("s0") == wanted
    assert made.clients("s6") == ["s7"]


def test_a_shared_file_system_is_written_once():
    seen = {"s0": ["s0"], "s1": ["s1", "s3"], "s2": ["s2"], "s3": [], "s4": ["s0", "s4"]}
    made = chain.chain(["s1", "s2", "s3", "s4"], "s0", seen)
    assert made.members == ["s0", "s1", "s2"]
    assert made.shared == {"s3": "s1", "s4": "s0"}
