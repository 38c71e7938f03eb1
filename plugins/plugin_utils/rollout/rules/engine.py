# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about an engine's flags and environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .. import secrecy
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.arguments import COMPUTED_FLAGS
from ..model import Instance, Node, canonical
from ..releases import Release, standing
from ..topology import given_flags, joined
from ..values import JSON, JSON_OR_TEXT, SAME, as_json, did_you_mean
from .base import (
    Context,
    block_size,
    chunked_prefill,
    context_parallel,
    dotted_keys,
    flag_number,
    flashcomm,
    graph_mode,
    interleave,
    number,
    rule,
    switched_on,
)

# Flags that carry a secret: a command line is readable by every user of the server.
_SECRET_FLAGS = frozenset({"api-key", "hf-token"})
_SECRET_ENV = frozenset(
    {"VLLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"}
)

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


def _given(c: Context, node: Node) -> Iterator[tuple[str, str, object]]:
    """The flags of pd_engine_args: as spelt, the option without the part after a dot, value."""
    for flag in given_flags(c.cluster.release, node.settings.engine_args):
        yield flag.spelt, flag.name, flag.value


# Short options (V@0.23.0:vllm/engine/arg_utils.py), which have no place in a mapping of long flags.
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
    "Every flag is one of the release's `vllm serve`",
    cure="correct the flag's name, or remove it",
    source="V@0.13.0:vllm/entrypoints/openai/cli_args.py, vllm/engine/arg_utils.py",
)
def flags_known(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, node in c.nodes():
        for spelt, name, value in _given(c, node):
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
                host=node.host,
                instance=instance.name,
                variable="pd_engine_args",
                seen=spelt,
                expected=f"one of the {len(release.options)} long options of vllm serve {release.vllm}",
                cure=cure,
            )


def _percentage(c: Context, name: str, value: object) -> float | None:
    """The number of a percentage where the option takes a number, else None: in a text it may stand."""
    if c.cluster.release.kinds.get(name) not in _NUMBERS_AS_TEXT or not isinstance(value, str):
        return None
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\s*", value)
    return float(match[1]) if match else None


@rule(
    "PD419",
    ERROR,
    "No number is given as a percentage",
    cure="write the share as a number from 0 to 1, such as 0.9",
    source="V@0.13.0:vllm/config/cache.py (gpu_memory_utilization)",
)
def no_percentage(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        for spelt, name, value in _given(c, node):
            share = _percentage(c, name, value)
            if share is not None:
                yield r.at(
                    f"vllm serve reads no percentages, and --{spelt} is one",
                    host=node.host,
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"{spelt}: {str(value).strip()}",
                    expected=f"{spelt}: {share / 100:g}",
                )


@rule(
    "PD402",
    ERROR,
    "Flags that the planner computes are not given by hand",
    cure="remove the flag, and set the variable that decides it",
    source="docs/variables.md",
)
def flags_computed(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        for spelt, name, value in _given(c, node):
            if name in COMPUTED_FLAGS:
                yield r.at(
                    f"--{name} is computed",
                    host=node.host,
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"{spelt}: {shown(value, 60)}",
                    expected=f"decided by {COMPUTED_FLAGS[name]}",
                )


@rule(
    "PD403",
    ERROR,
    "A flag has the kind of value that vLLM takes for it",
    cure="true or false for a switch, a value for the others, null to leave a flag of the profile out",
    source="V@0.13.0:vllm/engine/arg_utils.py",
)
def flag_kinds(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, node in c.nodes():
        for spelt, name, value in _given(c, node):
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
                host=node.host,
                instance=instance.name,
                variable="pd_engine_args",
                seen="(not shown)" if name in _SECRET_FLAGS else f"{spelt}: {shown(value, 80)}",
                expected=expected,
            )


# As Python's int() and float() and vLLM's human_readable_int take them; None where the option has no value.
_WHOLE = r"[-+]?[0-9]+(_[0-9]+)*"
_UNITS = rf"{_WHOLE}|[0-9]+(\.[0-9]+)?[kmgt]|[0-9]+[KMGT]"
_NUMBERS_AS_TEXT = {
    "int": _WHOLE,
    "units": _UNITS,
    "units or auto": rf"{_UNITS}|(?i:auto)",
    "float": r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?(?i:inf|infinity|nan)",
}


def _other_kind(release: Release, name: str, value: object) -> str | None:
    """What the parser takes, where a single value is surely none of it."""
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
    """What an option of JSON takes, where the value is surely none of it."""
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
    """Keys that the class of an option of JSON does not have: instance, option, key, what may be meant."""
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
    """With the keys of --speculative-config, which the parser takes as they are and the engine's class
    reads."""
    release = c.cluster.release
    if release.speculative_keys_refused is not refused:
        return known
    return {**known, "speculative-config": release.speculative_keys}


@rule(
    "PD448",
    ERROR,
    "Keys of an option of JSON are those of the release, where vLLM refuses others",
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
    "Keys of an option of JSON are those of the release, where vLLM passes over others",
    cure="correct the key, or remove it",
    source=(
        "V@0.13.0:vllm/config/attention.py, vllm/config/speculative.py, and the classes of the other options"
    ),
)
def open_json_keys(r: Rule, c: Context) -> Iterator[Finding]:
    known = _with_speculation(c, c.cluster.release.open_json_keys, refused=False)
    for instance, name, key, near in _other_keys(c, known):
        yield r.at(
            f"--{name} of vllm {c.cluster.release.vllm} passes over the key {shown(key, 60)}{near}",
            instance=instance.name,
            variable="pd_engine_args",
            seen=f"{name}: {shown(key, 60)}",
            expected=f"one of {joined(sorted(known[name]), 60)}",
        )


@rule(
    "PD447",
    WARNING,
    "An option of JSON is given as a whole, or by its keys, not both",
    cure="put the keys behind dots into the mapping",
    source="V@0.13.0:vllm/utils/argparse_utils.py:344 (the keys come last, as a mapping of their own)",
)
def whole_or_keys(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_args", "pd_profile"):
        for name, value in node.flags.items():
            if isinstance(value, Mapping) and value and (dotted := dotted_keys(node, name)):
                yield r.at(
                    f"{joined(dotted)} would replace all of {name}: {joined(sorted(value))} would be lost",
                    host=node.host,
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"{name} and {joined(dotted)}",
                    expected="one of them",
                )


@rule(
    "PD404",
    ERROR,
    "No secret stands on a command line or in the plan",
    cure=(
        "use pd_api_key for the API's key; give other secrets in a file that pd_extra_mounts puts into "
        "the container"
    ),
    source="docs/variables.md",
)
def no_secrets(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        names = [
            f"--{name}" for _, name, value in _given(c, node) if name in _SECRET_FLAGS and value is not None
        ]
        names += [
            name
            for name, value in node.settings.engine_env.items()
            if name in _SECRET_ENV and value is not None
        ]
        for name in names:
            yield r.at(
                f"{name} would show a secret to every user of the server and in plan.json",
                host=node.host,
                instance=instance.name,
                variable="pd_engine_args" if name.startswith("--") else "pd_engine_env",
                seen=f"{name} (value not shown)",
                expected="no secret",
            )


@rule(
    "PD450",
    WARNING,
    "What looks like a secret is given in a file",
    cure="give it in a file that pd_extra_mounts puts into the container; keep it where it is none",
    source="docs/variables.md",
)
def likely_secrets(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        found = dict.fromkeys((variable, place) for variable, place, _ in secrecy.in_settings(node.settings))
        for variable, place in found:
            if place in _SECRET_ENV or canonical(place) in _SECRET_FLAGS:
                continue  # of these PD404 speaks
            where = (
                "the launch script, which root can read"
                if variable == "pd_engine_env"
                else "the engine's command line, which every user of the server can read"
            )
            yield r.at(
                f"{shown(place, 80)} looks like a secret: it stands in {where}, and in the plan's files",
                host=node.host,
                instance=instance.name,
                variable=variable,
                seen=f"{shown(place, 80)} (value not shown)",
            )


@rule(
    "PD405",
    ERROR,
    "With context parallel, the interleave size is the block size",
    cure="set cp-kv-cache-interleave-size and block-size to the same number, 128 in the guide",
    source="A@v0.13.0:vllm_ascend/platform.py:350-357",
)
def interleave_is_block(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        size, block = interleave(instance), block_size(instance.head)
        if context_parallel(instance) > 1 and size is not None and block is not None and size != block:
            yield r.at(
                f"cp_kv_cache_interleave_size({size}) and block_size({block}) needs to be equal if use pcp "
                "or dcp > 1 in "
                "P/D disaggregate and kv pool scenario.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"cp-kv-cache-interleave-size {size}, block-size {block}",
                expected=f"both {block}",
            )


@rule(
    "PD406",
    ERROR,
    "With decode context parallel, the block size is a multiple of the interleave size",
    cure="set cp-kv-cache-interleave-size to the block size",
    source="V@0.13.0:vllm/config/vllm.py:788-811",
)
def block_holds_interleave(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        size, block = interleave(instance), flag_number(instance.head, "block-size", 128)
        if instance.parallel.decode_context < 2 or size is None or block is None:
            continue
        if size < 1 or size > block or block % size:
            yield r.at(
                f"Block_size({block}) should be greater than or equal to and divisible by "
                "cp_kv_cache_interleave_size "
                f"({size}).",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"cp-kv-cache-interleave-size {size}, block-size {block}",
                expected=f"a divisor of {block}",
            )


@rule(
    "PD407",
    ERROR,
    "Without chunked prefill a whole prompt fits into one batch",
    cure="raise max-num-batched-tokens, lower max-model-len, or enable chunked prefill",
    source="V@0.13.0:vllm/config/scheduler.py:250",
)
def batch_holds_prompt(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in _heads(c):
        batch, length = flag_number(node, "max-num-batched-tokens"), flag_number(node, "max-model-len")
        if not chunked_prefill(node) and batch is not None and length is not None and batch < length:
            yield r.at(
                f"max_num_batched_tokens ({batch}) is smaller than max_model_len ({length}). This "
                "effectively limits the "
                "maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-num-batched-tokens {batch}, max-model-len {length}",
                expected=f"max-num-batched-tokens at least {length}",
            )


@rule(
    "PD408",
    ERROR,
    "A batch holds at least one token of every sequence",
    cure="raise max-num-batched-tokens, or lower max-num-seqs",
    source="V@0.13.0:vllm/config/scheduler.py:264",
)
def batch_holds_sequences(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in _heads(c):
        batch, sequences = flag_number(node, "max-num-batched-tokens"), flag_number(node, "max-num-seqs")
        if batch is not None and sequences is not None and batch < sequences:
            yield r.at(
                f"max_num_batched_tokens ({batch}) must be greater than or equal to max_num_seqs "
                f"({sequences}).",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-num-batched-tokens {batch}, max-num-seqs {sequences}",
                expected=f"max-num-batched-tokens at least {sequences}",
            )


def _heads(c: Context) -> Iterator[tuple[Instance, Node]]:
    for instance in c.instances("pd_engine_args"):
        yield instance, instance.head


@rule(
    "PD409",
    ERROR,
    "FlashComm1 runs with more than one tensor rank",
    cure="set VLLM_ASCEND_ENABLE_FLASHCOMM1: null in pd_engine_env, or raise tensor",
    source="A@v0.13.0:vllm_ascend/utils.py:769",
)
def flashcomm_tensor(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_env"):
        if flashcomm(c, instance.head) and instance.parallel.tensor < 2:
            yield r.at(
                "Flash Comm v1 (Sequence Parallelism) is only supported when tp_size > 1.",
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"FlashComm1 on, tensor {instance.parallel.tensor}",
                expected="tensor at least 2",
            )


@rule(
    "PD410",
    ERROR,
    "FlashComm1 with a model of experts runs with expert parallel",
    cure="set enable-expert-parallel: true in pd_engine_args",
    source="A@v0.13.0:vllm_ascend/utils.py:774",
)
def flashcomm_experts(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args", "pd_engine_env", "pd_profile"):
        node = instance.head
        if (
            flashcomm(c, node)
            and instance.settings.profile.experts
            and node.flag("enable-expert-parallel") is not True
        ):
            yield r.at(
                "Flash Comm v1 (Sequence Parallelism) requires enable_expert_parallel=True for MoE models.",
                instance=instance.name,
                variable="pd_engine_args",
                seen="enable-expert-parallel is off",
                expected="enable-expert-parallel: true",
            )


def _capture_sizes(node: Node) -> list[int] | None:
    config = node.flag("compilation-config")
    sizes = config.get("cudagraph_capture_sizes") if isinstance(config, Mapping) else None
    if sizes is None:
        sizes = node.flag("cudagraph-capture-sizes")
    if isinstance(sizes, list) and sizes and all(number(size) is not None for size in sizes):
        return [size for size in map(number, sizes) if size is not None]
    return None


@rule(
    "PD411",
    ERROR,
    "FlashComm1 with graphs captures multiples of the tensor size",
    cure="add a multiple of tensor to cudagraph_capture_sizes, or run eagerly",
    source="A@v0.13.0:vllm_ascend/platform.py:222-230",
)
def flashcomm_graphs(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_engine_env"):
        node, tensor = instance.head, instance.parallel.tensor
        sizes = _capture_sizes(node)
        on = flashcomm(c, node) and node.flag("enforce-eager") is not True
        if on and tensor > 1 and sizes is not None and not any(size % tensor == 0 for size in sizes):
            yield r.at(
                f"cudagraph_capture_sizes {sizes} does not containvalues that are multiples of tp_size "
                f"{tensor}",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"{sizes}",
                expected=f"a multiple of {tensor} among them",
            )


@rule(
    "PD412",
    ERROR,
    "Graph mode and ASCEND_LAUNCH_BLOCKING exclude each other",
    cure="remove ASCEND_LAUNCH_BLOCKING, or set enforce-eager: true",
    source="A@v0.13.0:vllm_ascend/platform.py:304",
)
def graphs_or_blocking(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_args", "pd_engine_env"):
        if node.env.get("ASCEND_LAUNCH_BLOCKING") == "1" and graph_mode(node):
            yield r.at(
                "ACL graph is incompatible with ASCEND_LAUNCH_BLOCKING=1. Please unset "
                "ASCEND_LAUNCH_BLOCKING or set it "
                "to 0.",
                host=node.host,
                instance=instance.name,
                variable="pd_engine_env",
                seen="ASCEND_LAUNCH_BLOCKING=1",
                expected="0, or enforce-eager",
            )


@rule(
    "PD413",
    ERROR,
    "An instance of several nodes runs its workers by multiprocessing",
    cure="set distributed-executor-backend to mp, or remove it",
    source="V@0.13.0:vllm/config/parallel.py",
)
def executor_backend(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in _heads(c):
        backend = node.flag("distributed-executor-backend")
        if instance.spans_nodes and backend not in (None, "mp", "uni", "external_launcher"):
            yield r.at(
                "nnodes > 1 can only be set when distributed executor backend is mp, uni or "
                "external_launcher.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=backend,
                expected="mp",
            )


@rule(
    "PD414",
    ERROR,
    "The largest captured graph is the largest capture size",
    cure="remove max_cudagraph_capture_size, or set it to the largest of cudagraph_capture_sizes",
    source="V@0.13.0:vllm/config/vllm.py (_set_cudagraph_sizes)",
)
def capture_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in _heads(c):
        config, sizes = node.flag("compilation-config"), _capture_sizes(node)
        largest = config.get("max_cudagraph_capture_size") if isinstance(config, Mapping) else None
        if largest is None:
            largest = node.flag("max-cudagraph-capture-size")
        value = number(largest)
        if value is not None and sizes and value != max(sizes):
            yield r.at(
                f"max_cudagraph_capture_size ({value}) is not the largest of cudagraph_capture_sizes "
                f"({max(sizes)})",
                instance=instance.name,
                variable="pd_engine_args",
                seen=value,
                expected=max(sizes),
            )


@rule(
    "PD415",
    WARNING,
    "Prefill context parallel runs with expert parallel",
    cure="set enable-expert-parallel: true in pd_engine_args",
    source="vllm-ascend issue 8579",
)
def context_with_experts(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_profile"):
        if (
            instance.parallel.prefill_context > 1
            and instance.settings.profile.experts
            and instance.head.flag("enable-expert-parallel") is not True
        ):
            yield r.at(
                "prefill context parallel without expert parallel answers less accurately",
                instance=instance.name,
                variable="pd_engine_args",
                seen="enable-expert-parallel is off",
                expected="enable-expert-parallel: true",
            )


def _without_switch(c: Context) -> Iterator[tuple[Instance, Node, str]]:
    """The nodes of instances with prefill context parallel that lack the release's switch, and its name."""
    name = c.cluster.release.limits.context_switch
    for instance, node in c.nodes("pd_parallel", "pd_engine_env") if name else ():
        if name and instance.parallel.prefill_context > 1 and not switched_on(node, name):
            yield instance, node, name


def _experts_gathered(c: Context, instance: Instance) -> bool:
    """Whether the model's experts exchange tokens by gathering them, the only way that asks for the switch.

    That is without expert parallel, and on A2 (A@v0.13.0:vllm_ascend/ascend_forward_context.py:208,
    select_moe_comm_method); FlashComm1 gathers on its own, whatever the switch
    (A@v0.13.0:vllm_ascend/ops/fused_moe/prepare_finalize.py:338).
    """
    experts = instance.settings.profile.experts
    parallel = instance.head.flag("enable-expert-parallel") is True
    if experts is False or flashcomm(c, instance.head):
        return False
    if c.cluster.declaration.server == "atlas-a2":
        return bool(experts) or parallel
    return bool(experts) and not parallel


@rule(
    "PD416",
    ERROR,
    "Prefill context parallel is switched on in the environment too, where experts are gathered",
    cure='set VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL: "1" in pd_engine_env',
    source="A@v0.13.0:vllm_ascend/ops/fused_moe/prepare_finalize.py:427",
)
def context_switch(r: Rule, c: Context) -> Iterator[Finding]:
    """Each context rank would take its own share of the experts for its own tokens, and answer wrongly."""
    for instance, node, name in _without_switch(c):
        if "pd_profile" not in instance.unread and _experts_gathered(c, instance):
            yield r.at(
                "experts exchange tokens between context ranks only with this switch "
                + (
                    "on A2 servers"
                    if instance.head.flag("enable-expert-parallel") is True
                    else "where expert parallel is off"
                ),
                host=node.host,
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"{name}={node.env.get(name, '(not set)')}",
                expected="1",
            )


@rule(
    "PD438",
    WARNING,
    "Prefill context parallel is switched on in the environment as the guide has it",
    cure='set VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL: "1" in pd_engine_env',
    source=(
        "A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md:324; without it: "
        "A@v0.13.0:tests/e2e/nightly/multi_node/config/DeepSeek-R1-W8A8-longseq.yaml"
    ),
)
def context_switch_advised(r: Rule, c: Context) -> Iterator[Finding]:
    """With expert parallel on A3 no code asks for it: upstream's own tests run without."""
    for instance, node, name in _without_switch(c):
        profile = instance.settings.profile
        if "pd_profile" not in instance.unread and (
            profile.experts is False or _experts_gathered(c, instance)
        ):
            continue  # a model without experts needs none; of the others PD416 speaks
        yield r.at(
            f"the guide of {c.cluster.release.name} sets the switch with separate prefill and decode; it is "
            "needed where experts run without expert parallel",
            host=node.host,
            instance=instance.name,
            variable="pd_engine_env",
            seen=f"{name}={node.env.get(name, '(not set)')}",
            expected="1",
        )


@rule(
    "PD417",
    ERROR,
    "Prefiller and decoder serve the model under one name",
    cure="set pd_served_model_name once, in group_vars/all",
    source=(
        "A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py (one request "
        "to both)"
    ),
)
def one_name(r: Rule, c: Context) -> Iterator[Finding]:
    first: Instance | None = None
    for instance in c.instances("pd_served_model_name"):
        first = first or instance
        if instance.settings.served_model_name != first.settings.served_model_name:
            yield r.at(
                f"the proxy sends the same request to {first.name} and {instance.name}, and one of them "
                "would not know the "
                "model",
                instance=instance.name,
                variable="pd_served_model_name",
                seen=instance.settings.served_model_name,
                expected=first.settings.served_model_name,
            )


@rule(
    "PD418",
    ERROR,
    "The parallel sizes of the planner are flags of the release",
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
