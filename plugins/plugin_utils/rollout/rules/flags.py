# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about flags of `vllm serve`: names, kinds of values, JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.arguments import COMPUTED_FLAGS
from ..model import Instance
from ..releases import Release, standing
from ..topology import joined
from ..values import JSON, JSON_OR_TEXT, SAME, as_json, did_you_mean
from .base import (
    Context,
    at_node,
    dotted_keys,
    given,
    number,
    rule,
)
from .secrets import SECRET_FLAGS

# Flags whose value the rules need as a whole number.
_NUMBERS = (
    "block-size",
    "cp-kv-cache-interleave-size",
    "dcp-kv-cache-interleave-size",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "seed",
    "api-server-count",
)

# Short options (V@0.23.0:vllm/engine/arg_utils.py), which a mapping of long flags cannot contain.
_SHORT = {
    "O": "optimization-level",
    "ac": "attention-config",
    "asc": "api-server-count",
    "cc": "compilation-config",
    "dcp": "decode-context-parallel-size",
    "dp": "data-parallel-size",
    "dpa": "data-parallel-address",
    "dpb": "data-parallel-backend",
    "dpl": "data-parallel-size-local",
    "dpn": "data-parallel-rank",
    "dpp": "data-parallel-rpc-port",
    "dpr": "data-parallel-start-rank",
    "ep": "enable-expert-parallel",
    "n": "nnodes",
    "pcp": "prefill-context-parallel-size",
    "pp": "pipeline-parallel-size",
    "q": "quantization",
    "r": "node-rank",
    "sc": "speculative-config",
    "tp": "tensor-parallel-size",
}


@rule(
    "PD401",
    ERROR,
    "Every flag exists in the release's `vllm serve`",
    cure="correct the flag's name, or remove it",
    source="V@0.13.0:vllm/entrypoints/openai/cli_args.py, vllm/engine/arg_utils.py",
)
def flags_known(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, node in c.nodes():
        for spelt, name, value in given(c, node):
            if name in release.options:
                continue
            positive = name.removeprefix("no-")
            where = standing(release, name, "options")
            near = "" if where.gone_since or where.comes_with else did_you_mean(name, release.options, SAME)
            if spelt in _SHORT:
                near = f"; -{spelt} is short for --{_SHORT[spelt]}"
            cure = None
            if positive in release.switch_options:
                cure = f"write {positive}: {'true' if value is False else 'false'}"
            elif where.gone_since is not None:
                cure = where.removal()
            elif where.comes_with is not None:
                cure = f"remove it, or set pd_release to {where.comes_with} or a later release"
            yield r.at(
                f"vllm {release.vllm} has no --{spelt}{near}{where.sentence()}",
                **at_node(instance, node),
                variable="pd_engine_args",
                seen=spelt,
                expected=f"one of the {len(release.options)} long options of vllm serve {release.vllm}",
                cure=cure,
            )


def _percentage(c: Context, name: str, value: object) -> float | None:
    """The number of a percentage if the option takes a number, else None: a text may contain percentages."""
    if c.cluster.release.kinds.get(name) not in _NUMBERS_AS_TEXT or not isinstance(value, str):
        return None
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\s*", value)
    return float(match[1]) if match else None


@rule(
    "PD419",
    ERROR,
    "Numbers are not written as percentages",
    cure="write the fraction as a number from 0 to 1, such as 0.9",
    source="V@0.13.0:vllm/config/cache.py (gpu_memory_utilization)",
)
def no_percentage(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        for spelt, name, value in given(c, node):
            share = _percentage(c, name, value)
            if share is not None:
                yield r.at(
                    f"vllm serve does not accept percentages, but --{spelt} is one",
                    **at_node(instance, node),
                    variable="pd_engine_args",
                    seen=f"{spelt}: {str(value).strip()}",
                    expected=f"{spelt}: {share / 100:g}",
                )


@rule(
    "PD402",
    ERROR,
    "Flags that the planner computes are not set by hand",
    cure="remove the flag, and set the variable that determines it",
    source="docs/variables.md",
)
def flags_computed(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        for spelt, name, value in given(c, node):
            if name in COMPUTED_FLAGS:
                yield r.at(
                    f"--{name} is computed",
                    **at_node(instance, node),
                    variable="pd_engine_args",
                    seen=f"{spelt}: {shown(value, 60)}",
                    expected=f"decided by {COMPUTED_FLAGS[name]}",
                )


@rule(
    "PD403",
    ERROR,
    "Every flag has a value of the kind that vLLM accepts",
    cure="use true or false for a switch, a value for any other flag, null to drop a flag of the profile",
    source="V@0.13.0:vllm/engine/arg_utils.py",
)
def flag_kinds(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, node in c.nodes():
        for spelt, name, value in given(c, node):
            if (
                value is None
                or name not in release.options
                or "." in spelt
                or _percentage(c, name, value) is not None
            ):
                continue  # of percentages PD419 speaks
            switch = name in release.switch_options or name in release.flag_options
            if switch and not isinstance(value, bool):
                expected = "true or false"
            elif not switch and isinstance(value, bool):
                expected = "a value"
            elif name in _NUMBERS and number(value) is None and str(value).lower() != "auto":
                expected = "a whole number"
            elif not switch and (wanted := _other_kind(release, name, value)) is not None:
                expected = wanted
            elif value in ("", [], [[]]) or (
                isinstance(value, list) and any(isinstance(item, list) or item is None for item in value)
            ):
                expected = "a value, or a list of values"
            elif not switch and "\x00" in str(value):
                expected = "text without NUL characters"
            else:
                continue
            yield r.at(
                f"--{name} takes {expected}",
                **at_node(instance, node),
                variable="pd_engine_args",
                seen="(not shown)" if name in SECRET_FLAGS else f"{spelt}: {shown(value, 80)}",
                expected=expected,
            )


# As Python's int() and float() and vLLM's human_readable_int accept them; None if the option has no value.
_WHOLE = r"[-+]?[0-9]+(_[0-9]+)*"

_UNITS = rf"{_WHOLE}|[0-9]+(\.[0-9]+)?[kmgt]|[0-9]+[KMGT]"

_NUMBERS_AS_TEXT = {
    "int": _WHOLE,
    "units": _UNITS,
    "units or auto": rf"{_UNITS}|(?i:auto)",
    "float": r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?(?i:inf|infinity|nan)",
}


def _other_kind(release: Release, name: str, value: object) -> str | None:
    """Describe what the parser accepts if a single value is certainly wrong, else None."""
    kind = release.kinds[name]
    if kind in (JSON, JSON_OR_TEXT):
        return _other_json(release, name, value)
    if isinstance(value, list | dict):
        return "a number" if isinstance(value, dict) and kind in _NUMBERS_AS_TEXT else None
    if isinstance(kind, tuple):
        text = str(value).lower().replace("-", "_")
        allowed = {choice.lower().replace("-", "_") for choice in kind}
        return None if text in allowed else f"one of {joined(kind, 8)}"
    text = str(value).strip()
    pattern = _NUMBERS_AS_TEXT.get(kind)
    if pattern is None or text == "None" or re.fullmatch(pattern, text):
        return None
    return "a number" if kind == "float" else "a whole number"


def _other_json(release: Release, name: str, value: object) -> str | None:
    """Describe what a JSON option accepts if the value is certainly wrong, else None."""
    kind, said = release.kinds[name], value
    if value in ("", "None"):
        return None
    if isinstance(value, str) and (kind == JSON or re.fullmatch(r"(?s)\s*\{.*\}\s*", value)):
        try:
            said = as_json(value)
        except ValueError:
            return "a mapping, or JSON"
    keys = name in release.json_keys or name in release.open_json_keys
    return "a mapping, or JSON of one" if keys and not isinstance(said, Mapping) else None


def _other_keys(c: Context, known: Mapping[str, frozenset[str]]) -> Iterator[tuple[Instance, str, str, str]]:
    """Yield keys that the class of a JSON option does not have: instance, option, key, a suggestion."""
    for instance in c.instances("pd_engine_args", "pd_profile"):
        node = instance.head
        for name, keys in known.items():
            if name in COMPUTED_FLAGS:
                continue  # of these PD402 speaks
            value = node.flag(name)
            given = [str(key) for key in value] if isinstance(value, Mapping) else []
            given += [spelt.split(".")[1].rstrip("+") for spelt in dotted_keys(node, name)]
            for key in given:
                if key not in keys:
                    yield instance, name, key, did_you_mean(key, keys, SAME)


def _with_speculation(
    c: Context, known: Mapping[str, frozenset[str]], *, refused: bool
) -> Mapping[str, frozenset[str]]:
    """Including the keys of --speculative-config, which the parser accepts unchecked and the engine's class
    reads."""
    release = c.cluster.release
    if release.speculative_keys_refused is not refused:
        return known
    return {**known, "speculative-config": release.speculative_keys}


@rule(
    "PD448",
    ERROR,
    "Every key of a JSON option exists in the release (options for which vLLM rejects unknown keys)",
    cure="correct the key, or remove it",
    source=(
        "V@0.13.0:vllm/config/compilation.py, V@0.18.0:vllm/config/speculative.py, and the classes of the "
        "other options"
    ),
)
def json_keys(r: Rule, c: Context) -> Iterator[Finding]:
    known = _with_speculation(c, c.cluster.release.json_keys, refused=True)
    for instance, name, key, near in _other_keys(c, known):
        yield r.at(
            f"--{name} of vllm {c.cluster.release.vllm} has no key {shown(key, 60)}{near}",
            instance=instance.name,
            variable="pd_engine_args",
            seen=f"{name}: {shown(key, 60)}",
            expected=f"one of {joined(sorted(known[name]), 60)}",
        )


@rule(
    "PD449",
    WARNING,
    "Every key of a JSON option exists in the release (options for which vLLM ignores unknown keys)",
    cure="correct the key, or remove it",
    source=(
        "V@0.13.0:vllm/config/attention.py, vllm/config/speculative.py, and the classes of the other options"
    ),
)
def open_json_keys(r: Rule, c: Context) -> Iterator[Finding]:
    known = _with_speculation(c, c.cluster.release.open_json_keys, refused=False)
    for instance, name, key, near in _other_keys(c, known):
        yield r.at(
            f"--{name} of vllm {c.cluster.release.vllm} ignores the key {shown(key, 60)}{near}",
            instance=instance.name,
            variable="pd_engine_args",
            seen=f"{name}: {shown(key, 60)}",
            expected=f"one of {joined(sorted(known[name]), 60)}",
        )


@rule(
    "PD447",
    WARNING,
    "A JSON option is set as a whole or key by key, not both",
    cure="move the dotted keys into the mapping",
    source="V@0.13.0:vllm/utils/argparse_utils.py:344 (the keys come last, as a mapping of their own)",
)
def whole_or_keys(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_args", "pd_profile"):
        for name, value in node.flags.items():
            if isinstance(value, Mapping) and value and (dotted := dotted_keys(node, name)):
                yield r.at(
                    f"{joined(dotted)} would replace all of {name}: {joined(sorted(value))} would be lost",
                    **at_node(instance, node),
                    variable="pd_engine_args",
                    seen=f"{name} and {joined(dotted)}",
                    expected="one of them",
                )


@rule(
    "PD418",
    ERROR,
    "The release has a flag for every parallel size that is set",
    cure="set them to 1",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
def sizes_known(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel"):
        sizes = instance.parallel
        for name, size in (
            ("prefill-context-parallel-size", sizes.prefill_context),
            ("decode-context-parallel-size", sizes.decode_context),
        ):
            if size > 1 and name not in c.cluster.release.options:
                yield r.at(
                    f"release {c.cluster.release.name} has no --{name}",
                    instance=instance.name,
                    variable="pd_parallel",
                    seen=size,
                    expected="1",
                )
