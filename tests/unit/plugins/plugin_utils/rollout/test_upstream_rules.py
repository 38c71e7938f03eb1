# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Upstream's rules, one line each, and what the planner has for each: codes, or why none is needed."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import catalogue
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.arguments import COMPUTED_FLAGS
from planner_inventories import ROOT

# What the engine checks, where, and the codes that say it from the inventory.
COVERED: list[tuple[str, str, tuple[str, ...]]] = [
    # vLLM
    ("V:vllm/engine/arg_utils.py", "tp % dcp == 0, and so dcp <= tp", ("PD211",)),
    ("V:vllm/config/model.py", "heads % tp == 0", ("PD212",)),
    (
        "V:vllm/config/model.py",
        "without MLA and dcp > 1: tp > kv heads, dcp <= tp // kv heads, q heads",
        ("PD213",),
    ),
    ("V:vllm/config/vllm.py", "dcp > 1: interleave <= block, block % interleave == 0", ("PD406",)),
    ("V:vllm/engine/arg_utils.py", "(dp × pp × tp) % nnodes == 0, pcp not counted", ("PD202",)),
    ("V:vllm/v1/executor/multiproc_executor.py", "world size % nnodes within dp == 0", ("PD201",)),
    ("V:vllm/config/parallel.py", "several nodes: executor mp, uni or external_launcher", ("PD413",)),
    ("V:vllm/entrypoints/cli/serve.py", "headless: no hybrid load balancing", ("PD435",)),
    ("V:vllm/config/scheduler.py", "no chunked prefill: batch >= length", ("PD407",)),
    ("V:vllm/config/scheduler.py", "batch >= sequences", ("PD408",)),
    ("V:vllm/config/parallel.py", "dp local <= dp; every rank once", ("PD207", "PD208")),
    ("V:vllm/config/vllm.py", "largest captured graph is the largest capture size", ("PD414",)),
    (
        "V:vllm/entrypoints/openai/cli_args.py",
        "options, their kinds and choices, by release",
        ("PD401", "PD403", "PD447", "PD448", "PD449"),
    ),
    (
        "V:vllm/envs.py",
        "variables by release; time-out of the engine's start",
        ("PD420", "PD437", "PD439", "PD609"),
    ),
    # vllm-ascend, start
    ("A:vllm_ascend/utils.py check_kv_extra_config", "own sizes in kv_connector_extra_config", ("PD501",)),
    (
        "A:mooncake_connector.py",
        "sizes of both sides are there, and the same for all engines",
        ("PD502", "PD514"),
    ),
    ("A:mooncake_connector.py", "prefill tp >= decode tp", ("PD503",)),
    ("A:vllm_ascend/ascend_config.py", "without MLA: prefill tp % decode tp == 0", ("PD504",)),
    ("A:mooncake_connector.py", "pp and pcp not both", ("PD209",)),
    ("A:mooncake_connector.py", "decode pp is 1, in the engine and as told", ("PD210", "PD520")),
    ("A:mooncake_connector.py", "partition of the layers", ("PD519", "PD521")),
    ("V:vllm/distributed/utils.py", "partition of the layers fits the pipeline", ("PD225",)),
    ("A:mooncake_connector.py", "prefill pp is what it is; no dcp beside it", ("PD518", "PD519")),
    ("A:mooncake_layerwise_connector.py", "no pipeline", ("PD516",)),
    ("A:mooncake_layerwise_connector.py", "speculative layers, NZ layout", ("PD533", "PD534", "PD535")),
    ("A, V: caches", "types, layouts, ways, prompts of both sides", ("PD531", "PD532")),
    ("A: get_transfer_timeout_value", "whole numbers", ("PD540",)),
    ("A@v0.23.0:mooncake_connector.py", "hosts by the decoder's own kv_port", ("PD541",)),
    ("A: kv_pool.md", "one hash seed", ("PD536",)),
    ("V:kv_connector/factory.py", "names and modules of connectors", ("PD500", "PD515", "PD530")),
    ("V:kv_connector/v1/multi_connector.py", "connectors, made of each entry", ("PD526", "PD529")),
    ("V:vllm/config/vllm.py", "offloading replaces the connector; segments for CUDA", ("PD538", "PD539")),
    ("V:kv_connector/factory.py", "hybrid manager of caches: SupportsHMA", ("PD537",)),
    ("A:mooncake_layerwise_connector.py", "context ranks of both sides", ("PD517", "PD527")),
    ("A:mooncake_connector.py", "(P pcp × dcp) % (D pcp × dcp) == 0", ("PD505",)),
    ("A:mooncake_connector.py", "without MLA: kv heads per rank", ("PD506",)),
    (
        "A:mooncake_connector.py",
        "engine ids: no conflict, no two producers with one id and port",
        ("PD306", "PD508", "PD509"),
    ),
    ("A:mooncake_transfer_engine.py", "IPv4 only", ("PD122", "PD123")),
    ("A:vllm_ascend/platform.py", "context parallel: interleave is the block size", ("PD405",)),
    ("A:vllm_ascend/utils.py refresh_block_size", "one block size on both sides", ("PD507",)),
    (
        "A:vllm_ascend/worker/worker.py",
        "chips for the local ranks; one process for a chip",
        ("PD203", "PD205", "PD206"),
    ),
    (
        "A:vllm_ascend/utils.py",
        "FlashComm1: tp > 1, expert parallel, capture sizes",
        ("PD409", "PD410", "PD411"),
    ),
    ("A:vllm_ascend/platform.py", "graphs or ASCEND_LAUNCH_BLOCKING", ("PD412",)),
    ("A:vllm_ascend/utils.py", "FlashComm2: prefill, size, layer sharding", ("PD430",)),
    ("A:vllm_ascend/ascend_config.py", "enable_kv_nz: MLA, decode", ("PD423", "PD433")),
    (
        "A:vllm_ascend/ascend_config.py",
        "o_proj: graphs, decode, recompute, one tensor rank; sizes divide dp",
        ("PD427", "PD428", "PD429"),
    ),
    (
        "A:vllm_ascend/ascend_config.py",
        "xlite: speculation, pipeline, blocks of 128",
        ("PD431",),
    ),
    ("A:vllm_ascend/eplb", "dynamic eplb: its variable", ("PD432",)),
    ("A:prepare_finalize.py", "prefill context parallel: its switch, until v0.21", ("PD416", "PD438")),
    ("A:vllm_ascend/utils.py check_ascend_device_type", "A3 image on A3", ("PD602",)),
    # vllm-ascend, by release
    ("A@v0.18.0:platform.py", "layer_sharding: prefill", ("PD423",)),
    ("A@v0.18.0:platform.py", "balance scheduling: not with separate roles", ("PD426",)),
    ("A@v0.18.0:ascend_config.py", "FlashComm1 with pcp: batch rounded", ("PD611",)),
    ("A@v0.23.0:platform.py", "pcp or dp", ("PD220",)),
    ("A@v0.23.0:platform.py", "recompute scheduler: decode", ("PD424",)),
    ("A@v0.23.0:platform.py", "pipeline with MTP: prefill only", ("PD210", "PD223")),
    ("A@v0.23.0:ascend_config.py", "reduce sample: not on prefill, not with lmhead", ("PD423", "PD434")),
    (
        "A@v0.23.0:ascend_config.py",
        "profiling chunks: pipeline, no balance scheduling; dump_config once; fused MC2 or hierarchy; mix "
        "placement; static kernels",
        ("PD434",),
    ),
    ("A@v0.23.0:ascend_config.py", "deprecated variables; keys that are passed over", ("PD422", "PD425")),
    ("A:mooncake_layerwise_connector.py", "no pcp below v0.21; never on decode", ("PD511", "PD522")),
    # Ports and what hurts without being enforced
    (
        "Mooncake, PR 6455",
        "kv_port clear of the random ranges; HCCL's; reserved",
        ("PD302", "PD303", "PD304"),
    ),
    ("A: docs, port conflicts", "no two listeners on a port; ports exist", ("PD301", "PD305")),
    ("V:vllm/utils/network_utils.py", "advertised address", ("PD125",)),
    ("A: docs, context_parallel.md", "without MLA: (tp // kv heads) % dcp == 0", ("PD221",)),
    ("A: release notes", "decode tp > 1 at v0.13.0; fused MC2 at v0.18.0", ("PD512", "PD612")),
    (
        "A: issues 8579, 4866",
        "expert parallel with pcp; keys and variables that do nothing",
        ("PD415", "PD605", "PD606"),
    ),
    ("A: PD guide", "speculation on prefill; max_num_seqs × dp; HCCL time-out", ("PD603", "PD604", "PD607")),
    ("A: connector", "variable of the time a cache is kept", ("PD610",)),
    ("A: docs, installation.md", "image of the release", ("PD601", "PD608", "PD613")),
    ("A: proxy", "one model name, one length, one connector", ("PD417", "PD510", "PD513")),
]

# What the engines check too, and no inventory can break, since the planner writes it: the flag, and the rule.
COMPUTED: list[tuple[str, str]] = [
    ("kv-transfer-config", "kv_role is there, and one of two (V:vllm/config/kv_transfer.py)"),
    ("node-rank", "node_rank < nnodes (V:vllm/engine/arg_utils.py)"),
    ("nnodes", "world size == tp × pp × pcp (A: patch_multiproc_executor.py)"),
    ("headless", "headless: no API, api_server_count left out (V:vllm/entrypoints/cli/serve.py)"),
    ("data-parallel-rank", "dp rank given: one local rank (V:vllm/engine/arg_utils.py)"),
    ("master-addr", "an address of node 0 (V:vllm/v1/executor/multiproc_executor.py)"),
    ("data-parallel-start-rank", "start + local <= dp"),
]

# Not decided by an inventory. Sparse attention (dcp == tp, dcp on both sides or none): no profile has it.
# Draft models without MLA, hybrid models, C8 quantization on GQA: the models' own config.json says so. IPv6,
# TLS and dead links of the NPUs' network: checked on the servers.


@pytest.mark.parametrize(
    ("where", "what", "codes"), COVERED, ids=[f"{row[2][0]}-{i}" for i, row in enumerate(COVERED)]
)
def test_a_rule_has_its_codes(where: str, what: str, codes: tuple[str, ...]) -> None:
    known = {rule.code for rule in catalogue()}
    assert where and what
    assert set(codes) <= known


@pytest.mark.parametrize(("flag", "rule"), COMPUTED, ids=[row[0] for row in COMPUTED])
def test_a_computed_rule_has_its_flag(flag: str, rule: str) -> None:
    assert flag in COMPUTED_FLAGS, rule


def test_every_error_says_who_else_would_find_it() -> None:
    """In the table that the conformance tests prove with the real engines."""
    path = ROOT / "tests" / "conformance" / "refusals.yml"
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    proven = {row["rule"] for row in table["cases"]}
    told = [code for codes in table["elsewhere"].values() for code in codes]
    assert len(told) == len(set(told))
    assert not proven & set(told)
    assert proven | set(told) == {rule.code for rule in catalogue() if rule.severity == "error"}
