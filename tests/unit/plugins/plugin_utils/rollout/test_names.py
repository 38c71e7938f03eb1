# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Names of environment variables: a slip is told from a name that is meant, on both sides."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import slips
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import ERROR, Finding
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from planner_inventories import findings, small

OLD, MIDDLE, NEW = "v0.13.0", "v0.18.0", "v0.23.0"
OWN_IMAGE = "registry.example/own/vllm-ascend:glm5.2-a3"
EVERYWHERE = {name for release in release_names() for name in load_release(release).environment}


def about(release: str, name: str, image: str | None = None) -> list[Finding]:
    """What is said of a variable."""
    raw = small(
        {
            "pd_release": release,
            "pd_image": image or f"registry.example/vllm-ascend:{release}-a3",
            "pd_engine_env": {name: "1"},
        }
    )
    return [f for f in findings(raw) if f.seen is not None and f.seen.startswith(name)]


def codes(release: str, name: str, image: str | None = None) -> set[str]:
    return {f.code for f in about(release, name, image)}


def test_the_examples() -> None:
    assert doctest.testmod(slips).failed == 0


@pytest.mark.parametrize(
    ("release", "name"),
    [
        # Exported by upstream's own pages and nightly tests of the release.
        (NEW, "VLLM_RPC_TIMEOUT"),
        (MIDDLE, "VLLM_TORCH_PROFILER_WITH_STACK"),
        (NEW, "VLLM_TORCH_PROFILER_WITH_STACK"),
        (NEW, "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"),
        (NEW, "VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"),
        (MIDDLE, "VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"),
        (OLD, "VLLM_ASCEND_ENABLE_DEBSE_OPTIMIZE"),
        (NEW, "VLLM_ASCEND_ENABLE_FLASHCOMM"),
        (NEW, "VLLM_ASCEND_ENABLE_PREFETCH_MLP"),
        # Of a later release.
        (OLD, "VLLM_ENGINE_READY_TIMEOUT_S"),
        # Another number is another name, and a word more or less is no slip.
        (NEW, "VLLM_USE_V2"),
        (NEW, "VLLM_ASCEND_ENABLE_FLASHCOMM3"),
        (NEW, "VLLM_ENGINE_READY_TIMEOUT"),
        # A short word with another letter is another word.
        (NEW, "VLLM_TP_SIZE"),
    ],
)
def test_what_does_nothing_is_a_warning(release: str, name: str) -> None:
    assert codes(release, name) == {"PD437"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VLLM_LOGING_LEVEL", "VLLM_LOGGING_LEVEL"),
        ("VLM_LOGGING_LEVEL", "VLLM_LOGGING_LEVEL"),
        ("vllm_logging_level", "VLLM_LOGGING_LEVEL"),
        ("VLLM_LOGGINGLEVEL", "VLLM_LOGGING_LEVEL"),
        ("VLLM_ASCEND_ENABLE_FLASHCOM1", "VLLM_ASCEND_ENABLE_FLASHCOMM1"),
        ("VLLM_ASCEND_ENABEL_FLASHCOMM1", "VLLM_ASCEND_ENABLE_FLASHCOMM1"),
        ("VLLM_HOST_PI", "VLLM_HOST_IP"),
    ],
)
@pytest.mark.parametrize("image", [None, OWN_IMAGE])
@pytest.mark.parametrize("release", release_names())
def test_a_slip_is_an_error(release: str, image: str | None, name: str, meant: str) -> None:
    found = about(release, name, image)
    assert {f.code for f in found} == {"PD420"}
    assert {f.severity for f in found} == {ERROR}
    assert {f.expected for f in found} == {meant}


@pytest.mark.parametrize("image", [OWN_IMAGE, "registry.example/vllm-ascend:v0.23.0-a3"])
def test_a_variable_of_an_own_build_is_let_pass(image: str) -> None:
    """Without a suggestion that does not help; for a custom image the message says that it may read it."""
    found = about(NEW, "VLLM_ASCEND_ENABLE_SFA_KV_QUANT_SPARSE_ATTENTION", image)
    assert {f.code for f in found} == {"PD437"}
    assert not any("did you mean" in f.message for f in found)
    assert all(("a custom image may" in f.message) is (image == OWN_IMAGE) for f in found)


@pytest.mark.parametrize(
    ("release", "name", "sentences"),
    [
        (NEW, "VLLM_RPC_TIMEOUT", ("v0.13.0 and v0.18.0 do", "remove it: there is no replacement")),
        (NEW, "VLLM_TORCH_PROFILER_WITH_STACK", ("v0.13.0 does", "torch_profiler_with_stack")),
        (OLD, "VLLM_ENGINE_READY_TIMEOUT_S", ("v0.18.0 and v0.23.0 do", "set pd_release to v0.18.0")),
        (NEW, "VLLM_ENGINE_READY_TIMEOUT", ("did you mean VLLM_ENGINE_READY_TIMEOUT_S?",)),
        (NEW, "VLLM_ASCEND_FLASHCOMM1", ("did you mean VLLM_ASCEND_ENABLE_FLASHCOMM1?",)),
    ],
)
def test_a_warning_says_who_reads_it(release: str, name: str, sentences: tuple[str, ...]) -> None:
    (text,) = {f"{f.message} {f.cure}" for f in about(release, name)}
    assert all(sentence in text for sentence in sentences), text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LD_LIBRARY_PAggTH", "LD_LIBRARY_PATH"),
        ("LD_LIBRARYPATH", "LD_LIBRARY_PATH"),
        ("DL_LIBRARY_PATH", "LD_LIBRARY_PATH"),
        ("LD_PRELAOD", "LD_PRELOAD"),
        ("ld_preload", "LD_PRELOAD"),
        ("OMP_NUM_THREAD", "OMP_NUM_THREADS"),
        ("PYTHONPAHT", "PYTHONPATH"),
        ("PAHT", "PATH"),
        ("PATTH", "PATH"),
        ("HCCL_BUFSIZE", "HCCL_BUFFSIZE"),
        ("HCCL_BUFFER_SIZE", "HCCL_BUFFSIZE"),
        ("HCL_BUFFSIZE", "HCCL_BUFFSIZE"),
        ("HCCL_IF_PI", "HCCL_IF_IP"),
        ("GLO_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"),
        ("TP_SOCKET_IFNME", "TP_SOCKET_IFNAME"),
        ("PYTORCH_NPU_ALOC_CONF", "PYTORCH_NPU_ALLOC_CONF"),
        ("DYNAMIC_EPBL", "DYNAMIC_EPLB"),
    ],
)
def test_a_slip_of_a_library_s_name_is_said(name: str, meant: str) -> None:
    for release in release_names():
        found = about(release, name)
        assert {(f.code, f.expected) for f in found} == {("PD421", meant)}


MEANT: list[str] = [
    "MY_PATH", "MODEL_PATH", "MANPATH", "CPATH", "LIBRARY_PATH", "PATHS", "HOME", "HOSTNAME", "TERM",
    "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "all_proxy", "TMPDIR", "TMP", "TEMP", "LANG", "LC_ALL", "TQDM_DISABLE", "TQDM_MININTERVAL",
    "PYTHONUNBUFFERED", "PYTHONWARNINGS", "PYTHONHOME", "LD_DEBUG", "LD_BIND_NOW", "OMP_NESTED",
    "OMP_THREAD_LIMIT", "OMP_SCHEDULE", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "NCCL_BUFFSIZE", "NCCL_IB_DISABLE", "HCCL_LOGIC_SUPERPOD_ID",
    "HCCL_DIAGNOSE_ENABLE", "HCCL_DEBUG_CONFIG", "HCCL_OP_RETRY_PARAMS", "HCCL_INTER_HCCS_DISABLE",
    "HCCL_WHITELIST_FILE", "HCCL_RDMA_QPS_PER_CONNECTION", "ASCEND_HOME", "ASCEND_OPP_PATH",
    "ASCEND_TOOLKIT_HOME", "ASCEND_GLOBAL_EVENT_ENABLE", "ASCEND_VISIBLE_DEVICES",
    "ASCEND_A3_EBA_ENABLE", "ASCEND_LOCAL_COMM_RES_PATH",
    "ASCEND_LOG_DEVICE_FLUSH_TIMEOUT", "MC_LOG_LEVEL", "MC_GID_INDEX",
    "GLOG_minloglevel", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM", "CUDA_LAUNCH_BLOCKING", "TORCH_HCCL_ZERO_COPY", "PYTORCH_CUDA_ALLOC_CONF",
    "KMP_BLOCKTIME", "NODE_IP", "LOCAL_IP", "SERVER_PORT", "PORT", "RANKS", "SGLANG_HOST_IP",
    "MYVLLM_LOGGING", "GLOO_TIMEOUT", "TASK_NAME", "TP_SIZE", "DP_SIZE",
]  # fmt: skip


@pytest.mark.parametrize("name", MEANT)
def test_a_name_that_is_meant_is_no_slip(name: str) -> None:
    for release in release_names():
        assert not codes(release, name)


@pytest.mark.parametrize("release", release_names())
def test_what_a_release_reads_is_no_slip(release: str) -> None:
    """Nor what another reads: no two of them are taken for each other."""
    secrets = {"PD404", "PD222", "PD605"}
    names = sorted(EVERYWHERE)
    raw = small(
        {
            "pd_release": release,
            "pd_image": f"registry.example/vllm-ascend:{release}-a3",
            "pd_engine_env": dict.fromkeys(names, "1"),
        }
    )
    of_names: set[Any] = {f.code for f in findings(raw) if f.seen in EVERYWHERE} - secrets
    assert "PD420" not in of_names
    assert "PD421" not in of_names
