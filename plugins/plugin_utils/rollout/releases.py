# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Releases of vllm-ascend: one data file per release, under ``data/releases``, and what its code reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from .connectors import Connector, connectors, version
from .data import load, names
from .routers import Kind, kinds

__all__ = ["Connector", "Limits", "Release", "Standing", "load_release", "release_names", "standing"]


@dataclass(frozen=True)
class Limits:
    """What a release rejects, requires or does by itself, where releases differ."""

    # The variable that must be on with prefill context parallel; None if none is read.
    context_switch: str | None
    # Whether prefill context parallel and data parallel can be combined.
    prefill_context_with_data: bool
    # Whether a decoder with one tensor rank works with DeepSeek-V3.1.
    decoder_tensor_one: bool
    # Whether max-num-batched-tokens is rounded up to tensor × prefill context with FlashComm1.
    batch_rounded: bool
    # Whether the PD guide requires one speculative token on prefillers.
    one_speculative_token: bool
    # Whether balance scheduling is rejected with separate prefill and decode.
    balance_scheduling_refused: bool
    # Whether fused MC2 works on prefillers, and with several data-parallel ranks.
    fused_mc2: bool
    # Whether o_proj and embedding tensor parallel need the recompute scheduler.
    tensor_needs_recompute: bool
    # Whether o_proj tensor parallel needs one tensor rank.
    oproj_tensor_one: bool
    # The number of speculative tokens that xlite graphs support.
    xlite_speculative_tokens: int
    # Whether multi-token prediction can be combined with a pipeline in a colocated engine.
    mtp_with_pipeline: bool
    # Whether Mooncake keeps what it knows of a peer's transfer engine, also when another one has its port.
    descriptors_kept: bool
    # Whether kv_connector_module_path takes precedence over registered connector names.
    module_path_first: bool
    # Whether PyTorch's expandable segments for CUDA are rejected with a KV transfer.
    cuda_segments_refused: bool
    # Whether the planned connectors reject an IPv6 address as their own.
    ipv6_refused: bool
    # The option that replaces the configured connector with one for host memory.
    offloading_option: str


@dataclass(frozen=True)
class ConfigKey:
    """A key of --additional-config that is for one role only."""

    name: str
    role: str
    # "refused" or "ignored" in the other role.
    elsewhere: str
    # The engine's message there.
    message: str


@dataclass(frozen=True)
class Release:
    name: str
    vllm: str
    cann: str
    mooncake: str
    # The recommended driver for that CANN version.
    driver: str
    # The oldest NPU firmware that works with it; None if no source gives a number.
    firmware: str | None
    image: str
    # The version of Python in the image.
    python: str
    proxy_directory: str
    # Long options of the proxy's script by connector, without dashes, with the kinds of their values.
    proxy_options: Mapping[str, Mapping[str, Kind]]
    connectors: Mapping[str, Connector]
    # For connectors that are not planned here, by name, who registers them: vllm-ascend, vLLM, or vLLM for
    # other hardware.
    other_connectors: Mapping[str, str]
    # First and last port, both inclusive.
    mooncake_rpc: tuple[int, int]
    # The variables for its first and its last port; the first that is set counts.
    mooncake_rpc_variables: tuple[tuple[str, ...], tuple[str, ...]]
    # Whether Mooncake uses its default range instead of an invalid one.
    mooncake_checks_range: bool
    ascend_direct_base: int
    ascend_direct_step: int
    # The variable that moves that base; None if it is fixed.
    ascend_direct_variable: str | None
    hccl_base: int
    hccl_count: int
    ephemeral: tuple[int, int]
    manager_devices: tuple[str, ...]
    mounts: tuple[str, ...]
    limits: Limits
    # Seconds after which vLLM gives up the start of its engine; None if it waits without limit.
    engine_ready_timeout: int | None
    # The variable that sets how long a prefiller keeps a request's cache for its decoder.
    abort_timeout_variable: str
    config_keys: tuple[ConfigKey, ...]
    # Keys of --additional-config that a colocated engine rejects.
    colocated_refuses: frozenset[str]
    # Mutually exclusive settings of vllm-ascend: the names of PD434's pairs that the release rejects.
    exclusions: frozenset[str]
    idle_env: frozenset[str]
    # Variables that every engine reads as whole numbers when it starts.
    integer_env: tuple[str, ...]
    idle_kv_keys: frozenset[str]
    # Fields of --kv-transfer-config that the planner does not write: those that are read, and the others.
    kv_fields: frozenset[str]
    idle_kv_fields: frozenset[str]
    # Keys of kv_connector_extra_config that are read with every connector.
    kv_extra_keys: frozenset[str]
    # The replacements of removed options and variables, by name.
    replaced_options: Mapping[str, str]
    replaced_env: Mapping[str, str]
    # Environment variables that the release's code reads, and keys of --additional-config.
    environment: frozenset[str]
    additional_config: frozenset[str]
    # Deprecated variables, with the key of --additional-config that replaces each.
    deprecated_env: Mapping[str, str]
    # Kinds of the options that have a value: a word, or the list of allowed values.
    kinds: Mapping[str, str | tuple[str, ...]]
    # Long options of `vllm serve`, without dashes.
    value_options: frozenset[str]
    switch_options: frozenset[str]
    flag_options: frozenset[str]
    # Keys of the JSON options that a configuration class of vLLM reads: of classes that reject other keys,
    # and of classes that ignore them.
    json_keys: Mapping[str, frozenset[str]]
    open_json_keys: Mapping[str, frozenset[str]]
    # Keys of --speculative-config, which the parser does not check; whether the engine rejects others.
    speculative_keys: frozenset[str]
    speculative_keys_refused: bool

    @property
    def options(self) -> frozenset[str]:
        return self.value_options | self.switch_options | self.flag_options

    def option(self, flag: str) -> tuple[str, bool]:
        """Return the option that the parser reads a flag as, and whether in its ``--no-…`` form.

        A flag that is no option is returned as it is. Underscores count as dashes, and an unambiguous prefix
        is enough: argparse's abbreviations
        (V@0.13.0:vllm/utils/argparse_utils.py leaves allow_abbrev on).
        """
        name = flag.replace("_", "-")
        known = self._spellings
        if name not in known:
            begun = [spelling for spelling in known if spelling.startswith(name)]
            name = begun[0] if len(begun) == 1 else name
        return known.get(name, (name, False))

    @cached_property
    def _spellings(self) -> Mapping[str, tuple[str, bool]]:
        """Every long option of the parser, including the ``--no-…`` forms of switches."""
        negative = {f"no-{name}": (name, True) for name in self.switch_options}
        return {**{name: (name, False) for name in self.options}, **negative}

    @property
    def proxy_scripts(self) -> Mapping[str, str]:
        """The proxy's script, by connector."""
        return {name: connector.proxy_script for name, connector in self.connectors.items()}

    def ascend_direct(self, chips: int, base: int | None = None) -> tuple[int, int]:
        """Return the first and last port of AscendDirectTransport on a server with ``chips`` chips, both
        inclusive."""
        first = self.ascend_direct_base if base is None else base
        return first, first + self.ascend_direct_step * chips

    def image_of(self, a3: bool) -> str:
        """Return the image for A3 servers, or for A2: the same tag without its suffix
        (A@v0.13.0:docs/source/installation.md)."""
        return self.image if a3 else self.image.removesuffix("-a3")

    def kv_base(self, chips: int) -> int:
        """Return the first kv_port: the next full hundred above AscendDirectTransport's range."""
        return self.ascend_direct(chips)[1] + 100


def release_names() -> tuple[str, ...]:
    """Return the releases that there is data for, oldest first."""
    return tuple(sorted(names("releases"), key=version))


@cache
def load_release(name: str) -> Release:
    """Load a release; raises KeyError if there is no data for that name."""
    raw = load("releases", name)
    ports, container, proxy = raw["ports"], raw["container"], raw["proxy"]
    options = load("vllm", str(raw["vllm"]))
    reads = load("environment", name)
    return Release(
        name=str(raw["name"]),
        vllm=str(raw["vllm"]),
        cann=str(raw["cann"]),
        mooncake=str(raw["mooncake"]),
        driver=str(raw["driver"]),
        firmware=str(raw["firmware"]) if raw.get("firmware") else None,
        image=str(raw["image"]),
        python=str(raw["python"]),
        proxy_directory=str(proxy["directory"]),
        proxy_options={key: kinds(value) for key, value in proxy["options"].items()},
        connectors=connectors(name),
        other_connectors={
            connector: owner for owner, listed in raw["other_connectors"].items() for connector in listed
        },
        mooncake_rpc=(ports["mooncake_rpc"][0], ports["mooncake_rpc"][1]),
        mooncake_rpc_variables=(
            tuple(ports["mooncake_rpc_variables"][0]),
            tuple(ports["mooncake_rpc_variables"][1]),
        ),
        mooncake_checks_range=ports["mooncake_checks_range"],
        ascend_direct_base=ports["ascend_direct_base"],
        ascend_direct_step=ports["ascend_direct_step"],
        ascend_direct_variable=ports["ascend_direct_variable"],
        hccl_base=ports["hccl_base"],
        hccl_count=ports["hccl_count"],
        ephemeral=(ports["ephemeral"][0], ports["ephemeral"][1]),
        manager_devices=tuple(container["manager_devices"]),
        mounts=tuple(container["mounts"]),
        limits=Limits(**raw["limits"]),
        engine_ready_timeout=raw["engine_ready_timeout"],
        abort_timeout_variable=str(raw["abort_timeout_variable"]),
        config_keys=tuple(_config_keys(raw["config_keys"])),
        colocated_refuses=frozenset(raw["colocated_refuses"]),
        exclusions=frozenset(raw["exclusions"]),
        idle_env=frozenset(raw["idle_env"]),
        integer_env=tuple(raw["integer_env"]),
        idle_kv_keys=frozenset(raw["idle_kv_keys"]),
        kv_fields=frozenset(raw["kv_fields"]["read"]),
        idle_kv_fields=frozenset(raw["kv_fields"]["idle"]),
        kv_extra_keys=frozenset(raw["kv_extra_keys"]),
        replaced_options=dict(raw["replaced"]["options"]),
        replaced_env=dict(raw["replaced"]["env"]),
        environment=frozenset(reads["variables"]) | frozenset(raw["libraries_env"]),
        additional_config=frozenset(reads["additional_config"]),
        deprecated_env=dict(reads["deprecated"]),
        kinds={name: _kind(kind) for name, kind in options["values"].items()},
        value_options=frozenset(options["values"]),
        switch_options=frozenset(options["switches"]),
        flag_options=frozenset(options["flags"]),
        json_keys={option: frozenset(keys) for option, keys in options["keys"].items()},
        open_json_keys={option: frozenset(keys) for option, keys in options["open_keys"].items()},
        speculative_keys=frozenset(raw["speculative_config"]["keys"]),
        speculative_keys_refused=raw["speculative_config"]["refused"],
    )


def _kind(kind: Any) -> str | tuple[str, ...]:
    return tuple(str(choice) for choice in kind) if isinstance(kind, list) else str(kind)


def _config_keys(raw: Mapping[str, Any]) -> Iterator[ConfigKey]:
    for name, facts in raw.items():
        yield ConfigKey(
            str(name), str(facts["role"]), str(facts["elsewhere"]), " ".join(str(facts["message"]).split())
        )


@dataclass(frozen=True)
class Standing:
    """What is known about a name that a release does not have."""

    # The first release that no longer has it; None if no release ever had it.
    gone_since: str | None = None
    # The first later release that has it; None if there is none.
    comes_with: str | None = None
    # Its replacement.
    instead: str | None = None

    def sentence(self) -> str:
        """Return a note to append to a message; empty if nothing is known."""
        parts = []
        if self.gone_since is not None:
            parts.append(f"removed in {self.gone_since}")
        if self.comes_with is not None:
            parts.append(f"available from {self.comes_with} on")
        return f" ({'; '.join(parts)})" if parts else ""

    def removal(self) -> str:
        """Return the cure for a removed name, with its replacement if that is known."""
        if self.instead is None:
            return "remove it"
        what, _, more = self.instead.partition("; ")
        if what == "nothing":
            return "remove it: there is no replacement" + (f"; {more}" if more else "")
        return f"remove it; its replacement: {self.instead}"


def standing(release: Release, name: str, what: str) -> Standing:
    """Return what is known about a name that the release does not have; ``what`` is "options" or
    "environment"."""
    replaced = "replaced_options" if what == "options" else "replaced_env"
    has = {other: name in getattr(load_release(other), what) for other in release_names()}
    here = version(release.name)
    earlier = [other for other in has if version(other) < here]
    gone_since = None
    if any(has[other] for other in earlier):
        last = max((other for other in earlier if has[other]), key=version)
        gone_since = next(other for other in has if version(other) > version(last))
    later = [other for other in has if version(other) > here and has[other]]
    instead = None
    if gone_since is not None:
        instead = getattr(load_release(gone_since), replaced).get(name)
    return Standing(gone_since, later[0] if later and gone_since is None else None, instead)
