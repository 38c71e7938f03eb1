# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Advice: settings that are known to cause trouble, and settings that have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import HINT, WARNING, Finding, Rule
from ..topology import protocol
from .base import Context, at_node, flag_number, number, rule

# Seconds that HCCL waits for its peers by default, and the seconds that a slow load needs.
HCCL_DEFAULT_TIMEOUT = 120
HCCL_SAFE_TIMEOUT = 400


@rule(
    "PD601",
    WARNING,
    "The registry of the image is configured",
    cure="set pd_image_registry to your registry or mirror, or pd_image to a complete reference",
    source="A@v0.13.0:docs/source/installation.md",
)
def image_registry(r: Rule, c: Context) -> Iterator[Finding]:
    if not c.cluster.declaration.image_has_registry:
        yield r.at(
            "neither pd_image nor pd_image_registry is set: Docker would ask its default registry for the "
            "image, and it is "
            "not published there",
            variable="pd_image_registry",
            seen=c.cluster.declaration.image,
            expected="a registry in front of the image",
        )


@rule(
    "PD602",
    WARNING,
    "The image matches the servers: tags for Atlas A3 have -a3, tags for A2 do not",
    cure="leave pd_image unset, or correct it or pd_server; tags for A3 end in -a3 or -a3-openeuler",
    source="A@v0.13.0:vllm_ascend/utils.py (check_ascend_device_type)",
)
def image_is_the_servers(r: Rule, c: Context) -> Iterator[Finding]:
    image, server = c.cluster.declaration.image, c.cluster.declaration.server
    name = image.rsplit("/", 1)[-1]
    if not name.startswith("vllm-ascend:") or ":pinned-" in name or ("-a3" in name) == (server == "atlas-a3"):
        return
    built, there = ("A2", "A3") if server == "atlas-a3" else ("A3", "A2")
    yield r.at(
        f"an image {'without' if built == 'A2' else 'with'} -a3 is for {built}, and stops on {there} with: "
        "Current device type: … does not match the installed version's device type",
        variable="pd_image",
        seen=image,
        expected=f"{image}-a3" if built == "A2" else image.replace("-a3", ""),
    )


@rule(
    "PD603",
    WARNING,
    "HCCL waits long enough for nodes that load at different speeds",
    cure='set HCCL_CONNECT_TIMEOUT: "1200" in pd_engine_env',
    source="HCCL's default of 120 s; upstream's CI uses 400 to 1200",
)
def hccl_timeout(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        if len(instance.nodes) < 2:
            continue
        value = node.env.get("HCCL_CONNECT_TIMEOUT")
        seconds = HCCL_DEFAULT_TIMEOUT if value is None else number(value)
        if seconds is None or seconds < HCCL_SAFE_TIMEOUT:
            yield r.at(
                f"a node that loads its weights {HCCL_DEFAULT_TIMEOUT if seconds is None else seconds} s "
                "longer than the "
                "others ends the start with EI0006 Getting socket times out",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"HCCL_CONNECT_TIMEOUT={'(not set: 120)' if value is None else value}",
                expected=f"at least {HCCL_SAFE_TIMEOUT} seconds",
            )


@rule(
    "PD604",
    WARNING,
    "The decoders have room for the expected number of concurrent requests",
    cure="raise max-num-seqs or data of the decoders, add a decoder, or lower pd_expected_concurrency",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md (max-num-seqs)",
)
def concurrency(r: Rule, c: Context) -> Iterator[Finding]:
    wanted = c.cluster.declaration.expected_concurrency
    if wanted is None:
        return
    limits = [(i, flag_number(i.head, "max-num-seqs")) for i in c.instances(role="decoder")]
    known = [(i, limit) for i, limit in limits if limit is not None]
    total = sum(limit * i.parallel.data for i, limit in known)
    if known and len(known) == len(limits) and total < wanted:
        yield r.at(
            f"max_num_seqs × data_parallel_size of all decoders is {total}: the other requests wait, and "
            "their time to the "
            "first token includes the wait",
            variable="pd_expected_concurrency",
            seen=f"{wanted} expected, {total} served concurrently",
            expected=f"max-num-seqs × data of at least {wanted}",
        )


@rule(
    "PD605",
    HINT,
    "The release reads every environment variable that is set",
    cure="remove it; keeping it does no harm, because it has no effect",
    source="A@v0.13.0:vllm_ascend, V@0.13.0:vllm (in no file)",
)
def idle_environment(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for name in sorted(release.idle_env):
        if any(name in node.env for _, node in c.nodes("pd_engine_env")):
            yield r.at(
                f"no code of {release.name} reads {name}",
                variable="pd_engine_env",
                seen=name,
                expected="not set",
            )


@rule(
    "PD606",
    HINT,
    "The release reads every key of the KV transfer configuration",
    cure="remove it; keeping it does no harm, because it has no effect",
    source="A@v0.13.0:vllm_ascend (in no file), vllm_ascend/distributed/__init__.py; vllm-ascend issue 4866",
)
def idle_transfer_keys(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, node in c.nodes("pd_profile", "pd_kv_extra_config", "pd_kv_transfer_config"):
        if node.rank:
            continue
        role = node.settings.profile.roles[instance.role]
        keys = {*role.kv_extra_config, *node.settings.kv_extra_config}
        for key in sorted(keys & release.idle_kv_keys):
            yield r.at(
                f"no code of {release.name} reads {key} (it was needed at v0.11.0)",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=key,
                expected="not set",
            )
        for name in sorted(node.settings.kv_transfer_config.keys() & release.idle_kv_fields):
            yield r.at(
                f"no code of {release.name} reads {name} with the planned connectors, or vllm-ascend sets it "
                "itself",
                instance=instance.name,
                variable="pd_kv_transfer_config",
                seen=name,
                expected="not set",
            )
        if role.kv_module_path is not None:
            yield r.at(
                "kv_connector_module_path is read only if the connector's name is not registered (from vLLM "
                "0.23 on, it takes precedence over the name), and the module has moved since v0.18.0",
                instance=instance.name,
                variable="pd_profile",
                seen=role.kv_module_path,
                expected="not set",
            )


@rule(
    "PD607",
    HINT,
    "Prefillers speculate one token only",
    cure="set num_speculative_tokens to 1 for the prefiller with a later release",
    source="A@v0.23.0 PD guide (1 on prefill nodes, 1 or more on decode nodes, for non-hybrid models)",
)
def speculative_tokens(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args", role="prefiller"):
        config = instance.head.flag("speculative-config")
        tokens = number(config.get("num_speculative_tokens")) if isinstance(config, Mapping) else None
        if tokens is not None and tokens > 1:
            yield r.at(
                f"{tokens} speculative tokens on a prefiller, which writes one token and stops; "
                + (
                    "the PD guide says 1"
                    if c.cluster.release.limits.one_speculative_token
                    else "later guides say 1"
                ),
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"num_speculative_tokens {tokens}",
                expected="1",
            )


METACACHE = "MC_DISABLE_METACACHE"


@rule(
    "PD626",
    HINT,
    "Engines do not keep what they know of the transfer engine of a peer that was restarted",
    cure='set MC_DISABLE_METACACHE: "1" in pd_engine_env of these instances',
    source="MC@v0.3.7.post2:mooncake-transfer-engine/src/transfer_metadata.cpp:508, 534 and config.cpp:180",
)
def stale_descriptors(r: Rule, c: Context) -> Iterator[Finding]:
    if not c.cluster.release.limits.descriptors_kept or c.cluster.colocated:
        return
    # Who transfers looks its peer up.
    role, peer = ("decoder", "prefiller") if protocol(c.cluster) == "pull" else ("prefiller", "decoder")
    for instance, node in c.nodes("pd_engine_env"):
        # Any value turns it off, an empty one too.
        if instance.role == role and METACACHE not in node.env:
            yield r.at(
                f"a {peer} that is restarted may get a port that the {role} knows of an earlier one: answers"
                f" are then wrong, with status 200, until the {role} is restarted too",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{METACACHE} is not set",
                expected=f"{METACACHE}=1",
            )
