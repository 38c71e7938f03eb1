"""What the real parser takes for a flag the planner's rules about single flags take too."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from .planned import RELEASE, inventory, planned, ports, rules, small, topology

VALUES = (
    "-1", "None", "auto", "AUTO", "1k", "1.5k", "1K", "1_000", " 5 ", "5.0", "0.5", "1e3", "true", "x", "50%",
    "1,2", "inf", "{}", "[]", '{"a": 1}', "a-b", "0x10",
)  # fmt: skip
OF_FLAGS = {"PD401", "PD403", "PD419"}
# Which the planner writes itself, and a secret.
LEFT_OUT = {"PD402", "PD404"}


def takes(parser: Any, words: list[str]) -> bool:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(["serve", "/m", *words])
        except (Exception, SystemExit):
            return False
    return True


@pytest.mark.parametrize("value", VALUES)
def test_what_the_parser_takes_is_not_refused(value: str, real_parser: Any) -> None:
    release = inventory.read(small({}))[0].release
    flags = dict.fromkeys(sorted(release.value_options), value)
    declaration, found = inventory.read(small({"all": {"pd_release": RELEASE, "pd_engine_args": flags}}))
    cluster = topology.build(declaration)
    said = [
        f for f in (*found, *rules.check(cluster, ports.table(cluster))) if f.variable == "pd_engine_args"
    ]
    refused = {f.seen.split(":")[0] for f in said if f.code in OF_FLAGS and f.seen}
    assert not [name for name in sorted(refused) if takes(real_parser, [f"--{name}={value}"])]


def test_other_keys_of_json_are_refused_or_passed_over(real_parser: Any) -> None:
    """As the planner has it for each option."""
    release = inventory.read(small({}))[0].release
    known = {**release.json_keys, **release.open_json_keys}
    assert len(known) > 5
    taken = {name for name in known if takes(real_parser, [f"--{name}", '{"no_such_key": 1}'])}
    assert not taken & release.json_keys.keys()
    # What a class needs besides is asked for, whatever the key.
    empty = {name for name in release.open_json_keys if takes(real_parser, [f"--{name}", "{}"])}
    assert taken == empty


def test_values_behind_dots_are_read(real_parser: Any) -> None:
    """As the launch scripts write them."""
    key = "compilation-config.cudagraph_capture_sizes"
    args = {
        key: [1, 2],
        "compilation-config.pass_config.fuse_norm_quant": True,
        "allowed-origins": ["a", "b"],
    }
    raw = small({"all": {"pd_profile": "generic"}, "decoder": {"pd_engine_args": args}})
    argv = next(planned(raw).servers("decoder")).planned["argv"]
    parsed = real_parser.parse_args(argv[1:])
    assert parsed.allowed_origins == ["a", "b"]
    assert parsed.compilation_config.cudagraph_capture_sizes == [1, 2]
    assert parsed.compilation_config.pass_config.fuse_norm_quant is True


def test_spellings_of_the_parser_are_taken(real_parser: Any) -> None:
    """Every beginning of every option."""
    release = inventory.read(small({}))[0].release
    switches = sorted(release.switch_options | release.flag_options)
    beginnings = {name[:length] for name in switches for length in range(3, len(name))}
    known = {begin for begin in beginnings if release.option(begin)[0] in release.options}
    assert len(known) > 100
    assert not [
        begin for begin in sorted(beginnings) if takes(real_parser, [f"--{begin}"]) != (begin in known)
    ]
