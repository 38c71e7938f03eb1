#!/usr/bin/env python3
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/releases.md from the planner's data. With --check: only say whether it is current."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from doc_generator import main

from plugins.plugin_utils.rollout.connectors import Connector
from plugins.plugin_utils.rollout.profiles import load_profile, profile_names
from plugins.plugin_utils.rollout.releases import Limits, Release, load_release, release_names

HEAD = """\
# Releases

<!-- Written by scripts/gen_releases_docs.py from plugins/plugin_utils/rollout/data: not by hand. -->

`pd_release` decides the image, the flags, the environment, the ports, the proxy and the rules. A release
is described by data files: `releases/` (facts and limits), `vllm/` (every long option of its `vllm
serve`, from its own parser), `environment/` (every variable and key of `--additional-config` that its
code reads), `connectors/` and `profiles/` (with what each later release changes).
[CONTRIBUTING](../CONTRIBUTING.md#add-a-release) says how to add one.

## To move an inventory

Set `pd_release`, and `pd_image` if it names a tag; then run `playbooks/plan.yml`. It plans, or reports
everything that must change at once:

- An option that the release does not know is an error; the message says since when it is gone, what
  replaces it, which release brings it, or which name was probably meant (PD401). So is a typing error in
  the name of a variable (PD420).
- A variable or key that no code reads has no effect and is a warning (PD421, PD422, PD437).
- Sizes that the release refuses (PD220, PD511, PD522), settings of the other role (PD423, PD424) and an
  image of another release (PD608) are errors.

Profiles adapt to the release. A value in `pd_engine_args` replaces the profile's value as a whole, also
`additional-config`: see the table of the profile below for what to keep.

To try it first, `make simulate INVENTORY=…` makes servers with the simulated engine of that release, which
accepts what its `vllm serve` accepts and brings its proxy; then deploy there (`simulator/README.md`).
"""

# Sentences for a limit, by what its value is: for the table of differences.
LIMITS: Mapping[str, Mapping[Any, str]] = {
    "context_switch": {None: "prefill context parallel needs no variable"},
    "prefill_context_with_data": {
        True: "prefill context parallel and data parallel go together",
        False: "prefill context parallel and data parallel exclude each other (PD220)",
    },
    "decoder_tensor_one": {
        True: "a decoder of DeepSeek-V3.1 may have one tensor rank",
        False: "a decoder of DeepSeek-V3.1 needs more than one tensor rank (PD512)",
    },
    "batch_rounded": {
        True: "with FlashComm1 and prefill context parallel, batches are rounded up to their ranks (PD611)",
        False: "batches are not rounded",
    },
    "one_speculative_token": {
        True: "prefillers speculate one token (PD607)",
        False: "prefillers may speculate more than one token",
    },
    "balance_scheduling_refused": {
        True: "balance scheduling is refused with separate prefill and decode (PD426)",
        False: "balance scheduling is not refused",
    },
    "fused_mc2": {
        True: "fused MC2 has no known restriction",
        False: "fused MC2 fails on prefillers and with several data-parallel ranks (PD612)",
    },
    "tensor_needs_recompute": {
        True: "tensor parallel of o_proj and of the embedding needs the recompute scheduler (PD429)",
        False: "tensor parallel of o_proj needs no recompute scheduler",
    },
    "oproj_tensor_one": {
        True: "tensor parallel of o_proj needs tensor 1 (PD428)",
        False: "tensor parallel of o_proj goes with any tensor size",
    },
    "xlite_speculative_tokens": {
        0: "xlite graphs take no speculation (PD431)",
        1: "xlite graphs take one speculative token (PD431)",
    },
    "mtp_with_pipeline": {
        True: "one engine for both may predict tokens with a pipeline",
        False: "one engine for both predicts no tokens with a pipeline (PD223)",
    },
    "descriptors_kept": {
        True: (
            "what is known of a peer's transfer engine is kept for ever, unless `MC_DISABLE_METACACHE` is "
            "set (PD626)"
        ),
        False: "what is known of a peer's transfer engine is read anew after a failed transfer",
    },
    "cuda_segments_refused": {
        True: "`PYTORCH_CUDA_ALLOC_CONF` with expandable segments is refused with a KV transfer (PD539)",
        False: "`PYTORCH_CUDA_ALLOC_CONF` means nothing to a KV transfer",
    },
    "ipv6_refused": {
        True: "the connectors refuse an IPv6 address in `VLLM_HOST_IP` (PD126)",
        False: "no code refuses an IPv6 address in `VLLM_HOST_IP`",
    },
    "offloading_option": {
        "kv-offloading-backend": "`kv-offloading-backend` replaces the connector (PD538)",
        "kv-offloading-size": "`kv-offloading-size` alone replaces the connector (PD538)",
    },
    "module_path_first": {
        True: (
            "`kv_connector_module_path` is read before the connector's name is looked up, also for "
            "connectors that are registered"
        ),
        False: "`kv_connector_module_path` is read only where the connector's name is not registered",
    },
}


# How the limits are called in the overview.
TITLES: Mapping[str, str] = {
    "context_switch": "switch of prefill context parallel",
    "prefill_context_with_data": "prefill context and data parallel",
    "decoder_tensor_one": "one tensor rank in a decoder",
    "batch_rounded": "size of a batch",
    "one_speculative_token": "speculation on prefillers",
    "balance_scheduling_refused": "balance scheduling",
    "fused_mc2": "fused MC2",
    "tensor_needs_recompute": "recompute scheduler",
    "oproj_tensor_one": "tensor parallel of o_proj",
    "xlite_speculative_tokens": "xlite graphs",
    "mtp_with_pipeline": "prediction with a pipeline",
    "descriptors_kept": "restart of the peer of a KV transfer",
    "module_path_first": "module path of a registered connector",
    "cuda_segments_refused": "expandable segments for CUDA",
    "ipv6_refused": "IPv6 address of an engine",
    "offloading_option": "option that replaces the connector",
}


def code(names: Iterable[str]) -> str:
    listed = [f"`{name}`" for name in names]
    return ", ".join(listed) if listed else "none"


def limit_sentence(name: str, value: Any) -> str:
    known = LIMITS[name].get(value)
    return known or f"prefill context parallel needs `{value}` (PD416, PD438)"


def overview(releases: list[Release]) -> Iterator[str]:
    rows: list[tuple[str, list[str]]] = [
        ("image", [f"`{r.image}`" for r in releases]),
        ("vLLM", [r.vllm for r in releases]),
        ("CANN", [r.cann for r in releases]),
        ("Mooncake", [r.mooncake for r in releases]),
        ("driver, at least", [r.driver for r in releases]),
        ("long options of `vllm serve`", [str(len(r.options)) for r in releases]),
        ("Mooncake RPC, at random", [_span(r.mooncake_rpc) for r in releases]),
        ("AscendDirectTransport on 16 chips, at random", [_span(r.ascend_direct(16)) for r in releases]),
        (
            "its base is moved by",
            [f"`{r.ascend_direct_variable}`" if r.ascend_direct_variable else "nothing" for r in releases],
        ),
        ("first KV port on 16 chips", [str(r.kv_base(16)) for r in releases]),
        ("HCCL on the host", [_span((r.hccl_base, r.hccl_base + r.hccl_count - 1)) for r in releases]),
        (
            "vLLM ends its own start after",
            [f"{r.engine_ready_timeout} s" if r.engine_ready_timeout else "never" for r in releases],
        ),
        ("a prefiller keeps a prompt's cache by", [f"`{r.abort_timeout_variable}`" for r in releases]),
    ]
    for name, title in TITLES.items():
        rows.append((title, [limit_sentence(name, getattr(r.limits, name)) for r in releases]))
    yield "## At a glance"
    yield ""
    yield "| | " + " | ".join(r.name for r in releases) + " |"
    yield "|---|" + "---|" * len(releases)
    for title, cells in rows:
        yield f"| {title} | " + " | ".join(cells) + " |"


def _span(ports: tuple[int, int]) -> str:
    return f"{ports[0]}-{ports[1]}"


def ports_formula(connector: Connector) -> str:
    strides = dict(connector.strides)
    short = {"tensor": "tp", "prefill_context": "pcp", "pipeline": "pp", "data": "dp"}
    terms = ["kv_port"]
    for group in ("data", "pipeline", "prefill_context", "tensor"):
        if group in strides:
            factors = [f"{short[group]}_rank", *(short[factor] for factor in strides[group])]
            terms.append(" × ".join(factors))
    return " + ".join(terms)


BLOCKS = {
    "same": "one for both sides",
    "multiple": "a decoder's may be several of a prefiller's",
    "divisible": "one may be several of the other",
}


def connectors(releases: list[Release]) -> Iterator[str]:
    yield "## Connectors"
    for name in releases[-1].connectors:
        yield ""
        yield f"### {name}"
        yield ""
        latest = releases[-1].connectors[name]
        yield f"The {latest.listener}s listen. Proxy: `{latest.proxy_script}`."
        yield ""
        yield "| release | module | prefill context parallel | handshake port | options of its proxy |"
        yield "|---|---|---|---|---|"
        for release in releases:
            known = release.connectors[name]
            context = "yes" if known.prefill_context_parallel else "refused (PD511)"
            if known.context_by_node and not known.prefill_context_parallel:
                context = "one rank on each node (PD511)"
            options = code(sorted(release.proxy_options[name]))
            yield f"| {release.name} | `{known.module}` | {context} | `{ports_formula(known)}` | {options} |"
        yield ""
        yield "Its keys of `kv_connector_extra_config`, and those that all engines are told alike (PD502):"
        yield ""
        yield "| release | keys | alike | pipeline | block sizes |"
        yield "|---|---|---|---|---|"
        for release in releases:
            known = release.connectors[name]
            keys = code(sorted(f"{place}.{key}" for place, keys in known.reads.items() for key in keys))
            alike = code(f"{place}.{key}" for place, keys in known.shared.items() for key in keys)
            pipeline = "prefillers" if known.pipeline else "refused (PD516)"
            yield f"| {release.name} | {keys} | {alike} | {pipeline} | {BLOCKS[known.block_sizes]} |"
    yield ""
    yield "### Others"
    yield ""
    yield (
        "Registered, and not planned by this collection: such a connector is started with what "
        "`pd_kv_extra_config` says, and a warning (PD515). Those for other hardware are refused (PD500)."
    )
    yield ""
    owners = list(dict.fromkeys(owner for r in releases for owner in r.other_connectors.values()))
    yield f"| release | {' | '.join(owners)} |"
    yield f"|---|{'---|' * len(owners)}"
    for release in releases:
        cells = [
            code(sorted(name for name, other in release.other_connectors.items() if other == owner))
            for owner in owners
        ]
        yield f"| {release.name} | {' | '.join(cells)} |"


def changes(before: Release, after: Release) -> Iterator[str]:
    yield f"## What {after.name} changes for an inventory of {before.name}"
    yield ""
    gone = sorted(before.options - after.options)
    yield "Options of `vllm serve` that are gone (PD401):"
    yield ""
    yield from _gone(gone, after.replaced_options)
    yield ""
    yield f"New options: {code(sorted(after.options - before.options))}."
    yield ""
    lost = sorted(before.environment - after.environment)
    ours = [name for name in lost if name.startswith("VLLM_") or name in after.replaced_env]
    yield "Variables that no code reads any more (PD437):"
    yield ""
    yield from _gone(ours, after.replaced_env)
    yield ""
    new = sorted(name for name in after.environment - before.environment if name.startswith("VLLM_"))
    yield f"New variables: {code(new)}."
    yield ""
    moved = {n: k for n, k in after.deprecated_env.items() if n not in before.deprecated_env}
    if moved:
        yield "Deprecated variables, and the key of `additional-config` that takes the place of each (PD425):"
        yield ""
        yield from (f"- `{name}`: `{key}`" for name, key in sorted(moved.items()))
        yield ""
    lost_keys = sorted(before.additional_config - after.additional_config)
    new_keys = sorted(after.additional_config - before.additional_config)
    yield f"Keys of `additional-config` that are gone (PD422): {code(lost_keys)}. New ones: {code(new_keys)}."
    yield ""
    roles = {key.name: key for key in after.config_keys}
    if roles:
        parts = [f"`{key.name}` for {key.role}s ({key.elsewhere} elsewhere)" for key in roles.values()]
        yield f"Keys for one role (PD423, PD424): {', '.join(parts)}."
        yield ""
    sentences = [
        limit_sentence(name, getattr(after.limits, name))
        for name in (field.name for field in fields(Limits))
        if getattr(after.limits, name) != getattr(before.limits, name)
    ]
    yield "Rules that change:"
    yield ""
    yield from (f"- {sentence}" for sentence in sentences)


def _gone(names: list[str], replaced: Mapping[str, str]) -> Iterator[str]:
    told = [name for name in names if name in replaced]
    for name in told:
        what = replaced[name]
        yield f"- `{name}`: " + (what if what.startswith("nothing; ") else f"in its place {what}")
    rest = [name for name in names if name not in replaced]
    if rest:
        yield f"- with nothing in their place: {code(rest)}"
    if not names:
        yield "- none"


def profiles(releases: list[Release]) -> Iterator[str]:
    yield "## Profiles"
    yield ""
    yield "What a profile changes with a release; everything else stands in its file."
    for name in profile_names():
        first = load_profile(name, releases[0].name)
        yield ""
        yield f"### {name}"
        yield ""
        yield f"{first.description}. Sources: {'; '.join(first.sources)}."
        yield ""
        yield "| from | role | |"
        yield "|---|---|---|"
        for before, after in pairwise(releases):
            for role in first.roles:
                old, new = (load_profile(name, release.name).roles[role] for release in (before, after))
                found = [
                    *_difference(old.env, new.env, "environment"),
                    *_difference(old.args, new.args, "argument"),
                    *_difference(
                        {"kv_connector_module_path": old.kv_module_path, **old.kv_extra_config},
                        {"kv_connector_module_path": new.kv_module_path, **new.kv_extra_config},
                        "KV transfer",
                    ),
                ]
                yield f"| {after.name} | {role} | {'; '.join(found) or 'the same'} |"


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) == new.get(name):
            continue
        if new.get(name) is None:
            yield f"{what} `{name}` goes"
        else:
            yield f"{what} `{name}: {new[name]}`".replace("|", "\\|")


def page() -> str:
    """The page."""
    releases = [load_release(name) for name in release_names()]
    parts = [HEAD.rstrip("\n"), "\n".join(overview(releases)), "\n".join(connectors(releases))]
    parts += ["\n".join(changes(*pair)) for pair in pairwise(releases)]
    parts.append("\n".join(profiles(releases)))
    return "\n\n".join(parts) + "\n"


def documents() -> dict[str, str]:
    return {"docs/releases.md": page()}


if __name__ == "__main__":
    sys.exit(main(documents))
