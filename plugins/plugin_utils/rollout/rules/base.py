# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What all rules share: how a rule is declared, its context, and helpers that read flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from ..findings import Finding, Rule, Severity, declare
from ..model import Cluster, Instance, Node, Role
from ..ports import PortUse
from ..topology import given_flags

# The default block size, and the one that is forced with prefix caching or chunked prefill
# (A@v0.13.0:vllm_ascend/utils.py:1078, refresh_block_size).
ASCEND_BLOCK_SIZE = 128


@dataclass(frozen=True)
class Context:
    """What a rule checks: the cluster, its table of ports, and the topology that the playbook requires."""

    cluster: Cluster
    table: Mapping[str, tuple[PortUse, ...]]
    wanted_topology: str | None = None

    def instances(self, *variables: str, role: Role | None = None) -> Iterator[Instance]:
        """Yield the instances whose variables of these names could be read; others have a finding already.

        ``role`` limits them to prefillers or decoders.
        """
        for instance in self.cluster.instances:
            if (role is None or instance.role == role) and not instance.unread.intersection(variables):
                yield instance

    def nodes(self, *variables: str) -> Iterator[tuple[Instance, Node]]:
        for instance in self.cluster.instances:
            for node in instance.nodes:
                if not node.settings.unread.intersection(variables):
                    yield instance, node


class Place(TypedDict):
    """The keyword arguments of Rule.at that place a finding at a node of an instance."""

    host: str
    instance: str


def at_node(instance: Instance, node: Node) -> Place:
    """Return the place of a finding about one node, for Rule.at."""
    return {"host": node.host, "instance": instance.name}


Check = Callable[[Rule, Context], Iterator[Finding]]

_RULES: list[tuple[Rule, Check]] = []


def rule(code: str, severity: Severity, title: str, *, cure: str, source: str) -> Callable[[Check], Check]:
    """Declare a rule; the decorated function yields its findings.

    ``title`` states what is right, ``cure`` how to fix a violation, ``source`` where the rule is documented.
    A code that is already declared raises ValueError.
    """
    return finds(declare(code, severity, title, cure=cure, source=source))


def finds(declared: Rule) -> Callable[[Check], Check]:
    """Register the decorated function, which yields the findings of an already declared rule."""

    def enter(function: Check) -> Check:
        _RULES.append((declared, function))
        return function

    return enter


def all_rules() -> tuple[tuple[Rule, Check], ...]:
    return tuple(_RULES)


_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def number(value: Any) -> int | None:
    """Return a flag's value as a whole number, as int() reads it or with units (25.6k = 25600, 1K = 1024);
    None if it is not a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if re.fullmatch(r"\s*[-+]?[0-9]{1,12}(_[0-9]{1,12})*\s*", value):
            return int(value)
        match = re.fullmatch(r"([0-9]{1,12})([kmgtKMGT])", value)
        if match:
            return int(match[1]) * _UNITS[match[2]]
        match = re.fullmatch(r"([0-9]{1,12}\.[0-9]{1,6})([kmgt])", value)
        if match:
            return int(float(match[1]) * _UNITS[match[2]])
    return None


def flag_number(node: Node, name: str, default: int | None = None) -> int | None:
    """Return a flag's whole number, ``default`` if it is not set, None if its value is not a number."""
    value = node.flag(name)
    return default if value is None else number(value)


def block_size(node: Node) -> int | None:
    """Return the block size that the engine uses, in tokens; None if it is unknown."""
    given = flag_number(node, "block-size", ASCEND_BLOCK_SIZE)
    caching = node.flag("enable-prefix-caching") is not False
    if given != ASCEND_BLOCK_SIZE and (caching or chunked_prefill(node)):
        return ASCEND_BLOCK_SIZE
    return given


def chunked_prefill(node: Node) -> bool:
    """Whether prompts are processed in chunks, which is vLLM's default."""
    return node.flag("enable-chunked-prefill") is not False


def interleave(instance: Instance) -> int | None:
    """Return the cp_kv_cache_interleave_size that vLLM uses, in tokens (V@0.13.0:vllm/config/vllm.py:788)."""
    old = flag_number(instance.head, "dcp-kv-cache-interleave-size", 1)
    if instance.parallel.decode_context > 1 and old is not None and old > 1:
        return old
    return flag_number(instance.head, "cp-kv-cache-interleave-size", 1)


def context_parallel(instance: Instance) -> int:
    return instance.parallel.prefill_context * instance.parallel.decode_context


def graph_mode(node: Node) -> bool:
    """Whether the engine runs with captured graphs, as far as its flags show
    (A@v0.13.0:vllm_ascend/platform.py:205-300)."""
    if node.flag("enforce-eager") is True:
        return False
    xlite = additional_config(node).get("xlite_graph_config")
    if isinstance(xlite, Mapping) and xlite.get("enabled") and xlite.get("full_mode"):
        return False
    graphs = str(_compilation(node, "cudagraph_mode") or "").upper()
    mode = str(_compilation(node, "mode") or "").upper()
    if graphs == "NONE" or mode in _OTHER_MODES:
        return False
    if (
        _compilation(node, "mode") == 0
        or mode in ("0", "NONE")
        or number(node.flag("optimization-level")) == 0
    ):
        return graphs.startswith("FULL")
    return True


# Modes of compilation in which vllm-ascend captures nothing.
_OTHER_MODES = frozenset({"1", "2", "STOCK_TORCH_COMPILE", "DYNAMO_TRACE_ONCE"})


def _compilation(node: Node, key: str) -> Any:
    """Return a setting of --compilation-config, from its mapping or from a dotted flag."""
    config = node.flag("compilation-config")
    if dotted_keys(node, "compilation-config"):
        return node.flag(f"compilation-config.{key}".replace("_", "-"))
    return config.get(key) if isinstance(config, Mapping) else None


def dotted_keys(node: Node, name: str) -> list[str]:
    """Return the dotted flags (option.key) of a JSON option, as they are spelt."""
    return [spelt for spelt in node.args if spelt.replace("_", "-").startswith(f"{name}.")]


def additional_config(node: Node) -> Mapping[str, Any]:
    """Return --additional-config; empty if it is not set or not a mapping."""
    config = node.flag("additional-config")
    return config if isinstance(config, Mapping) else {}


def moved_setting(context: Context, node: Node, variable: str) -> Any:
    """Return a setting of vllm-ascend: the key of --additional-config that replaces ``variable`` in this
    release, else the environment variable itself; None if neither is set."""
    key = context.cluster.release.deprecated_env.get(variable)
    config = additional_config(node)
    return config[key] if key is not None and key in config else node.env.get(variable)


def flashcomm(context: Context, node: Node) -> bool:
    """Whether FlashComm1 is on, by its variable or by the key of --additional-config that replaces it."""
    return is_on(moved_setting(context, node, "VLLM_ASCEND_ENABLE_FLASHCOMM1"))


def is_on(value: Any) -> bool:
    """Whether a setting is on as upstream reads it: bool(int(value)), or true."""
    text = "0" if value is None else str(value).strip()
    return value is True or (text.isascii() and text.isdigit() and int(text[:9]) != 0)


def switched_on(node: Node, name: str) -> bool:
    """Whether an environment variable is on as upstream reads it."""
    return is_on(node.env.get(name))


def given(c: Context, node: Node) -> Iterator[tuple[str, str, object]]:
    """Yield the flags of pd_engine_args: as spelt, the option without the part after a dot, the value."""
    for flag in given_flags(c.cluster.release, node.settings.engine_args):
        yield flag.spelt, flag.name, flag.value
