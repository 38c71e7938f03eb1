"""The simulated engine is of the release that its image names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import COMMON, DECODE_KV_PORT, KV_PORT, Lab, kv_config, start_pair

ROOTFS = Path(__file__).resolve().parents[2] / "simulator" / "engine" / "rootfs"
VLLM = ROOTFS / "usr" / "local" / "bin" / "vllm"
ENGINE = ROOTFS / "opt" / "pd-sim-engine"
RELEASES = ["v0.13.0", "v0.18.0", "v0.23.0"]
RIGHT = " Paris, and has been for a long time."
P2P = "vllm_ascend.distributed.kv_transfer.kv_p2p."


def vllm(release: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PD_SIM_RELEASE": release}
    return subprocess.run(
        [sys.executable, str(VLLM), *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("release", RELEASES)
def test_version_is_the_releases(release: str) -> None:
    assert vllm(release, "--version").stdout.strip() == release.removeprefix("v")


@pytest.mark.parametrize(("release", "known"), [("v0.13.0", True), ("v0.18.0", False)])
def test_an_option_that_is_gone_is_refused(release: str, known: bool) -> None:
    said = vllm(release, "serve", "/no-model", "--swap-space", "4").stderr
    assert ("unrecognized arguments: --swap-space" not in said) == known


@pytest.mark.parametrize("release", RELEASES)
def test_a_start_gets_as_far_as_what_the_container_lacks(release: str) -> None:
    said = vllm(release, "serve", "/no-model")
    assert said.returncode == 1
    assert "cannot open shared object file" in said.stdout + said.stderr
    assert "TypeError" not in said.stdout + said.stderr


def test_visible_devices_count_the_containers_own(tmp_path: Path) -> None:
    """A container with chips 8 to 10, of which a rank takes the first and the last."""
    (tmp_path / "dev").mkdir()
    for chip in (8, 9, 10):
        (tmp_path / "dev" / f"davinci{chip}").touch()
    code = "import json; from pd_sim_engine import checks; print(json.dumps(checks.visible_chips()))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ENGINE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PD_SIM_ROOT": str(tmp_path),
        "ASCEND_RT_VISIBLE_DEVICES": "0,2,7",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == [8, 10]


@pytest.mark.parametrize("release", RELEASES)
def test_pair_of_each_release(lab: Lab, release: str) -> None:
    """Two nodes with context parallelism there, another tensor parallel size here: the right answer."""
    pair = start_pair(lab, tp=4, pcp=2, dcp=2, decode_tp=2, release=release)
    assert pair.answer() == RIGHT
    log = pair.prefiller.log
    assert f"vLLM API server version {release[1:]}" in log
    assert f"Initializing a V1 LLM engine (v{release[1:]})" in log
    assert ("Starting vLLM API server 0 on http://" in log) == (release == "v0.13.0")
    assert ("(EngineCore_DP0 pid=" in log) == (release == "v0.13.0")
    parameters = pair.prefill(request_id="look")
    assert ("remote_request_id" in parameters) == (release != "v0.13.0")
    answer = pair.decoder.complete(request_id="look", kv_transfer_params=parameters)
    assert answer["choices"][0]["text"] == RIGHT
    pair.tickle()
    pair.prefiller.wait_until(lambda: pair.prefiller.metric("vllm:kv_cache_usage_perc") == 0)


@pytest.mark.parametrize("release", ["v0.18.0", "v0.23.0"])
def test_later_decoders_ask_for_the_prefillers_size(lab: Lab, release: str) -> None:
    """What their own configuration says of it does not matter."""
    assert start_pair(lab, tp=4, pcp=1, dcp=1, nodes=1, believed_tp=2, release=release).answer() == RIGHT


def test_releases_that_do_not_understand_each_other(lab: Lab) -> None:
    """The decoder of a later release needs to be told the request's id."""
    pair = start_pair(lab, nodes=1, pcp=1, dcp=1)
    decoder = lab.start(
        lab.server("later", chips=2),
        *(*COMMON, "--enforce-eager", "--tensor-parallel-size", "2", "--kv-transfer-config"),
        kv_config("kv_consumer", DECODE_KV_PORT + 50, "4", 2, 2),
        env={"PD_SIM_RELEASE": "v0.18.0"},
    ).ready()
    body = {"prompt": "x", "kv_transfer_params": pair.prefill()}
    assert decoder.request("/v1/completions", body)[0] == 500
    assert "KeyError: 'remote_request_id'" in decoder.log


@pytest.mark.parametrize("release", RELEASES)
def test_time_until_blocks_are_freed_has_the_releases_name(lab: Lab, release: str) -> None:
    ours, other = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT", "VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT"
    if release != "v0.13.0":
        ours, other = other, ours
    pair = start_pair(lab, nodes=1, pcp=1, env={ours: "1", other: "100000"}, release=release)
    pair.prefill(request_id="left")

    def freed() -> bool:
        pair.tickle()
        return "Force freed" in pair.prefiller.log

    pair.prefiller.wait_until(freed)


CONSUMER = ("--prefill-context-parallel-size", "2", "--cp-kv-cache-interleave-size", "128")
BOTH = ("--data-parallel-size", "2", "--prefill-context-parallel-size", "2")
RECOMPUTE = ("--additional-config", '{"recompute_scheduler_enable": true}')
REFUSED = {
    "a module that has moved, where it goes first": (
        "v0.23.0",
        {"kv_connector_module_path": "vllm_ascend.distributed.mooncake_connector"},
        (),
        "ModuleNotFoundError: No module named 'vllm_ascend.distributed.mooncake_connector'",
    ),
    "a registered name is no class": (
        "v0.23.0",
        {"kv_connector_module_path": f"{P2P}mooncake_connector"},
        (),
        f"AttributeError: Class MooncakeConnectorV1 not found in {P2P}mooncake_connector",
    ),
    "a module of another release, for a name that is not registered": (
        "v0.13.0",
        {"kv_connector": "Mine", "kv_connector_module_path": f"{P2P}mooncake_connector"},
        (),
        f"ModuleNotFoundError: No module named '{P2P}mooncake_connector'",
    ),
    "a connector that is not registered yet": (
        "v0.18.0",
        {"kv_connector": "MooncakeHybridConnector"},
        (),
        "ValueError: Unsupported connector type: MooncakeHybridConnector",
    ),
    "context and data parallel": (
        "v0.23.0",
        None,
        BOTH,
        "PCP (Prefill Context Parallelism) and DP (Data Parallelism) cannot be enabled simultaneously",
    ),
    "the recompute scheduler without KV transfer, v0.18.0": (
        "v0.18.0",
        None,
        RECOMPUTE,
        "recompute_scheduler_enable can only be enabled in PD-disaggregated mode",
    ),
    "the recompute scheduler without KV transfer, v0.23.0": (
        "v0.23.0",
        None,
        RECOMPUTE,
        "recompute_scheduler_enable can only be enabled on PD-disaggregated D nodes (kv_role='kv_consumer', "
        "but got kv_role=None)",
    ),
    "a layerwise decoder with context parallel": (
        "v0.23.0",
        {"kv_connector": "MooncakeLayerwiseConnector", "kv_role": "kv_consumer"},
        CONSUMER,
        "AssertionError: Prefill context parallel is not support on decoder nodes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_release_refuses(lab: Lab, name: str) -> None:
    release, changes, words, message = REFUSED[name]
    given = [*COMMON, "--tensor-parallel-size", "2", "--enforce-eager", *words]
    if changes is not None:
        given += ["--kv-transfer-config", kv_config("kv_producer", KV_PORT, "0", 2, 2, **changes)]
    engine = lab.start(lab.server("server"), *given, env={"PD_SIM_RELEASE": release})
    assert engine.ends() == 1
    assert message in engine.log


ACCEPTED = {
    "a module that has moved, where a registered name goes first": (
        "v0.18.0",
        {"kv_connector_module_path": "vllm_ascend.distributed.mooncake_connector"},
        (),
    ),
    "a class of its own name in its module": (
        "v0.23.0",
        {
            "kv_connector": "MooncakeLayerwiseConnector",
            "kv_connector_module_path": f"{P2P}mooncake_layerwise_connector",
        },
        (),
    ),
    "context and data parallel": ("v0.18.0", None, BOTH),
    "the recompute scheduler on a prefiller, ignored": ("v0.23.0", {}, RECOMPUTE),
    "the recompute scheduler anywhere": ("v0.13.0", None, RECOMPUTE),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_release_accepts(lab: Lab, name: str) -> None:
    release, changes, words = ACCEPTED[name]
    given = [*COMMON, "--tensor-parallel-size", "2", "--enforce-eager", *words]
    if changes is not None:
        given += ["--kv-transfer-config", kv_config("kv_producer", KV_PORT, "0", 2, 2, **changes)]
    lab.start(lab.server("server"), *given, env={"PD_SIM_RELEASE": release}).ready()


@pytest.mark.parametrize("release", RELEASES)
def test_co_located(lab: Lab, release: str) -> None:
    """Without KV transfer one engine does both, and nobody listens beside its API."""
    engine = lab.start(
        lab.server("server"),
        *(*COMMON, "--tensor-parallel-size", "8", "--data-parallel-size", "2"),
        env={"PD_SIM_RELEASE": release},
    ).ready()
    assert [engine.complete()["choices"][0]["text"] for _ in range(4)] == [RIGHT] * 4
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    status, text = engine.request("/v1/chat/completions", body)
    assert (status, "The capital of France is Paris." in text) == (200, True)
    assert "Starting listening on path" not in engine.log


@pytest.mark.parametrize(("release", "moves"), [("v0.13.0", False), ("v0.18.0", True)])
def test_base_port_of_the_direct_transport(tmp_path: Path, release: str, moves: bool) -> None:
    code = (
        "from pd_sim_engine.handover import TransferEngine; import sys\n"
        "print(TransferEngine(int(sys.argv[1])).direct.getsockname()[1])"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ENGINE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PD_SIM_RELEASE": release,
        "ASCEND_BASE_PORT": "40000",
    }
    done = subprocess.run([sys.executable, "-c", code, "3"], env=environment, capture_output=True, check=True)
    first = 43000 if moves else 23000
    assert first <= int(done.stdout) <= first + 1000
