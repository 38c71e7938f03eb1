"""The KV hand-over between prefiller and decoder, and how it fails."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .harness import DECODE_KV_PORT, KV_PORT, QUESTION, TIMING, Lab, Pair, free_port, post, start_pair

RIGHT = " Paris, and has been for a long time."


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def is_garbage(text: str) -> bool:
    """The first token is wrong, then few words come again and again."""
    words = text.split()
    return bool(words) and not text.startswith(" Paris") and len(set(words)) <= 2 < len(words)


def test_guides_size(lab: Lab) -> None:
    """TP 16 × PCP 2 × DCP 8 on two nodes, TP 16 on the decoder: 32 listeners, 256 reads, the right answer."""
    pair = start_pair(lab, tp=16, pcp=2, dcp=8, decode_tp=16)
    assert pair.answer() == RIGHT
    head, worker = pair.nodes
    assert all(listens(head.address, KV_PORT + rank) for rank in range(16))
    assert all(listens(worker.address, KV_PORT + rank) for rank in range(16, 32))
    assert not listens(head.address, KV_PORT + 16)
    assert not listens(worker.address, KV_PORT)
    assert not any(listens(pair.decoder.address, DECODE_KV_PORT + rank) for rank in range(16))
    assert head.log.count("Starting listening on path: tcp://") == 16


def test_both_serve_and_blocks_are_freed(pair: Pair) -> None:
    before = pair.decoder.metric("vllm:prompt_tokens_total")
    assert pair.answer(request_id="both") == RIGHT
    assert pair.prefiller.metric("vllm:request_success_total", finished_reason="length") >= 1
    assert pair.decoder.metric("vllm:request_success_total", finished_reason="stop") >= 1
    assert pair.decoder.metric("vllm:prompt_tokens_total") == before + 5
    pair.tickle()
    pair.prefiller.wait_until(lambda: pair.prefiller.metric("vllm:kv_cache_usage_perc") == 0)


def test_parameters_for_the_decoder(pair: Pair) -> None:
    parameters = pair.prefill(request_id="look")
    head, worker = pair.nodes
    assert parameters["do_remote_prefill"] is True
    assert parameters["do_remote_decode"] is False
    assert (parameters["remote_host"], parameters["remote_port"]) == (head.address, KV_PORT)
    assert (parameters["remote_pcp_size"], parameters["remote_dcp_size"]) == (2, 2)
    assert parameters["remote_engine_id"].startswith("0-")
    mapping = parameters["remote_multi_nodes_meta_mapping"]
    assert [mapping[str(rank)]["host"] for rank in range(4)] == [head.address] * 2 + [worker.address] * 2
    assert [mapping[str(rank)]["engine_id"][:2] for rank in range(4)] == ["0-", "0-", "1-", "1-"]


def test_no_answer_before_every_node_holds_the_blocks(lab: Lab) -> None:
    """A node that is behind holds the prefill back: its chips are never read too early."""
    pair = start_pair(lab)
    worker = pair.nodes[1].process
    worker.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    timer = threading.Timer(0.5, worker.send_signal, (signal.SIGCONT,))
    timer.start()
    parameters = pair.prefill(request_id="behind")
    assert time.monotonic() - begun >= 0.5
    timer.join()
    answer = pair.decoder.complete(request_id="behind", kv_transfer_params=parameters)
    assert answer["choices"][0]["text"] == RIGHT


def test_an_answer_that_comes_too_late_is_nobodys(lab: Lab) -> None:
    """A client leaves while its blocks are read: the next request does not take its answer."""
    pair = start_pair(lab, nodes=1, pcp=1, dcp=1)
    prompts = {"known": "The capital of Italy is", "left": "The capital of Spain is", "next": QUESTION}
    given = {request: pair.prefill(prompt, request) for request, prompt in prompts.items()}
    known = pair.decoder.complete(prompts["known"], request_id="known", kv_transfer_params=given["known"])
    assert known["choices"][0]["text"].startswith(" Rome")
    pair.prefiller.process.send_signal(signal.SIGSTOP)
    client = post(pair.decoder, {"prompt": prompts["left"], "kv_transfer_params": given["left"]})
    pair.decoder.wait_until(lambda: pair.decoder.metric("vllm:num_requests_waiting") == 1)
    client.close()
    pair.decoder.wait_until(lambda: pair.decoder.metric("vllm:num_requests_waiting") == 0)
    pair.prefiller.process.send_signal(signal.SIGCONT)
    answer = pair.decoder.complete(prompts["next"], request_id="next", kv_transfer_params=given["next"])
    assert answer["choices"][0]["text"] == RIGHT


def test_a_read_that_fails_does_not_hurt_the_one_behind_it(lab: Lab) -> None:
    """Both go over the same connections, one after the other."""
    pair = start_pair(lab, nodes=1, pcp=1, dcp=1)
    assert pair.answer(request_id="known") == RIGHT
    given = {request: pair.prefill(request_id=request) for request in ("first", "second")}
    pair.prefiller.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(
            lambda one: pair.decoder.complete(request_id=one[0], kv_transfer_params=one[1]), given.items()
        )
        pair.decoder.wait_until(lambda: pair.decoder.metric("vllm:num_requests_waiting") == 2)
        pair.decoder.wait_for("Failed to transfer KV cache for request")
        pair.prefiller.process.send_signal(signal.SIGCONT)
        texts = [answer["choices"][0]["text"] for answer in answers]
    assert RIGHT in texts
    assert pair.decoder.request("/health")[0] == 200


def test_client_that_leaves_a_prefill_leaves_no_blocks(lab: Lab) -> None:
    """Not on the head, and not on the node that was behind; the same blocks then hold the next prompt."""
    pair = start_pair(lab)
    worker = pair.nodes[1].process
    worker.send_signal(signal.SIGSTOP)
    kv = {"do_remote_decode": True, "do_remote_prefill": False}
    body = {"prompt": "The capital of Spain is", "max_tokens": 1, "kv_transfer_params": kv}
    client = post(pair.prefiller, body)
    pair.prefiller.wait_for("Delaying free of 1 blocks for request")
    client.close()
    pair.prefiller.wait_until(lambda: pair.prefiller.metric("vllm:num_requests_running") == 0)
    assert pair.prefiller.metric("vllm:kv_cache_usage_perc") == 0
    worker.send_signal(signal.SIGCONT)
    assert pair.answer(request_id="next") == RIGHT


def test_prefiller_that_comes_back_is_told_to_free(lab: Lab) -> None:
    """The decoder's connections are to the process before; also those over which it only says that it is
    done."""
    pair = start_pair(lab, tp=4, pcp=1, dcp=2, nodes=1, decode_tp=1)
    assert pair.answer(request_id="one") == RIGHT
    pair.restart_prefiller(lab)
    assert pair.answer(request_id="two") == RIGHT
    pair.tickle()
    pair.prefiller.wait_until(lambda: pair.prefiller.metric("vllm:kv_cache_usage_perc") == 0)


def test_node_that_stops_working(lab: Lab) -> None:
    """The head waits for it as vLLM does (VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS), then the engine dies."""
    pair = start_pair(
        lab,
        prepare=lambda servers: servers["prefill0"].state(
            timing=TIMING | {"hccl_connect_timeout_scale": 0.01}
        ),
        env={"HCCL_CONNECT_TIMEOUT": "12000"},
    )
    pair.nodes[1].process.send_signal(signal.SIGSTOP)
    status, _ = pair.prefiller.request(
        "/v1/completions",
        {
            "model": "deepseek_v3",
            "prompt": "The capital of France is",
            "max_tokens": 1,
            "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False},
        },
    )
    assert status == 500
    pair.prefiller.wait_for("TimeoutError: RPC call to execute_model timed out.")


HELD = "vllm:kv_cache_usage_perc"
ABORT = {
    "v0.13.0": "VLLM_NIXL_ABORT_REQUEST_TIMEOUT",
    "v0.18.0": "VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT",
    "v0.23.0": "VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT",
}
OLD = [release for release in ABORT if release != "v0.23.0"]


@pytest.mark.parametrize("release", OLD)
def test_an_idle_prefiller_does_not_see_that_its_blocks_were_fetched(lab: Lab, release: str) -> None:
    """Until its next request, whosever that is."""
    pair = start_pair(lab, release=release)
    given = pair.prefill()
    held = pair.prefiller.metric(HELD)
    assert held > 0
    assert pair.prefiller.metric("vllm:num_requests_running") == 0
    pair.decoder.complete(request_id="r1", kv_transfer_params=given)
    assert pair.prefiller.metric(HELD) == held
    pair.tickle()
    pair.prefiller.wait_until(lambda: pair.prefiller.metric(HELD) == 0)


def test_a_later_idle_prefiller_sees_that_its_blocks_were_fetched(lab: Lab) -> None:
    pair = start_pair(lab, release="v0.23.0")
    given = pair.prefill()
    assert pair.prefiller.metric(HELD) > 0
    pair.decoder.complete(request_id="r1", kv_transfer_params=given)
    pair.prefiller.wait_until(lambda: pair.prefiller.metric(HELD) == 0)


@pytest.mark.parametrize("release", OLD)
def test_nobody_fetches(lab: Lab, release: str) -> None:
    """Blocks that no decoder fetches are freed after the time-out (480 s unless set), not while it idles."""
    pair = start_pair(lab, nodes=1, pcp=1, env={ABORT[release]: "0.3"}, release=release)
    pair.prefill(request_id="left")
    time.sleep(0.6)
    assert "Force freed" not in pair.prefiller.log
    assert pair.prefiller.metric(HELD) > 0
    pair.tickle()
    pair.prefiller.wait_for("Force freed request: cmpl-left-0")
    pair.prefiller.wait_until(lambda: pair.prefiller.metric(HELD) == 0)


def test_nobody_fetches_from_a_later_prefiller(lab: Lab) -> None:
    pair = start_pair(lab, nodes=1, pcp=1, env={ABORT["v0.23.0"]: "0.3"}, release="v0.23.0")
    pair.prefill(request_id="left")
    pair.prefiller.wait_for("Force freed expired request: cmpl-left-0")
    pair.prefiller.wait_until(lambda: pair.prefiller.metric(HELD) == 0)


def test_blocks_of_another_request(pair: Pair) -> None:
    """Blocks that are freed hold something else by the time they are read."""
    assert is_garbage(pair.answer(request_id="stale", remote_block_ids=[999]))


def test_wrong_port(pair: Pair) -> None:
    """Nobody answers: three tries, an error in the log, and the request goes on with what its blocks hold."""
    text = pair.answer(request_id="port", remote_port=KV_PORT + 500)
    assert is_garbage(text)
    log = pair.decoder.log
    assert "Receive failed: Receive timeout, retrying... (2 attempts left)" in log
    assert "Receive failed after all retries: Receive timeout" in log
    assert (
        "Failed to transfer KV cache for request cmpl-port-0: "
        "Failed to receive data after 3 retries: Receive timeout" in log
    )
    assert pair.decoder.request("/health")[0] == 200


def test_without_parameters_the_decoder_computes_itself(pair: Pair) -> None:
    assert pair.decoder.complete()["choices"][0]["text"] == RIGHT


def test_same_ids_do_not_hurt(lab: Lab) -> None:
    """The random suffix of v0.13.0 keeps equal ids apart."""
    assert start_pair(lab, nodes=1, pcp=1, ids=("7", "7", "7")).answer() == RIGHT


def test_same_ids_without_suffix(lab: Lab) -> None:
    def prepare(servers: dict[str, Any]) -> None:
        for server in servers.values():
            server.fault("engine_id_suffix", enabled=False)

    pair = start_pair(lab, nodes=1, pcp=1, ids=("7", "7", "7"), prepare=prepare)
    assert is_garbage(pair.answer())
    assert "Conflict engine id 7 with local engine id 7." in pair.decoder.log


@pytest.mark.parametrize("where", ["decode", "prefill0", "prefill1"])
def test_without_hccn_conf(lab: Lab, where: str) -> None:
    """Starts, is healthy, answers wrongly; only the decoder's plog says why, and only of its own side."""

    def prepare(servers: dict[str, Any]) -> None:
        (servers[where].root / "etc/hccn.conf").unlink()

    pair = start_pair(lab, prepare=prepare)
    assert is_garbage(pair.answer())
    assert pair.decoder.request("/health")[0] == pair.prefiller.request("/health")[0] == 200
    message = "'device ip' is not set correctly"
    assert all(message not in engine.log for engine in lab.engines)
    plogs = list((pair.servers["decode"].root / "root/ascend/log/debug/plog").glob("plog-*.log"))
    if where == "decode":
        assert message in plogs[0].read_text(encoding="utf-8")


def test_without_roce_an_empty_hccn_conf_will_do(lab: Lab) -> None:
    def prepare(servers: dict[str, Any]) -> None:
        for server in servers.values():
            (server.root / "etc/hccn.conf").write_text("", encoding="utf-8")
            server.fault("roce_unused")

    assert not is_garbage(start_pair(lab, prepare=prepare).answer())


def test_decoder_believes_in_more_chips(lab: Lab) -> None:
    """The peer's size is wrong on the decoder: it looks for chips that are not there."""
    pair = start_pair(lab, believed_tp=4)
    assert is_garbage(pair.answer())
    assert "Failed to transfer KV cache" in pair.decoder.log


def test_context_parallel_sizes_that_do_not_fit(lab: Lab) -> None:
    """(P.pcp × P.dcp) % (D.pcp × D.dcp) is asserted at the first request, and takes the decoder down."""
    pair = start_pair(lab, tp=4, pcp=1, dcp=2, nodes=1, decode_tp=4, decode_dcp=4)
    parameters = pair.prefill()
    body = {"prompt": "x y z", "kv_transfer_params": parameters}
    status, text = pair.decoder.request("/v1/completions", body)
    assert status == 500
    assert "EngineCore encountered an issue" in text
    assert pair.decoder.ends() == 0
    assert "EngineCore encountered a fatal error." in pair.decoder.log
    assert "AssertionError" in pair.decoder.log


def test_unequal_tensor_parallel(lab: Lab) -> None:
    """TP 4 there, TP 2 here, no context parallelism: each decoder chip reads one of the prefiller's."""
    pair = start_pair(lab, tp=4, pcp=1, dcp=1, nodes=1, decode_tp=2)
    assert pair.answer() == RIGHT
    assert "KV cache transfer for request cmpl-r1-0 took" in pair.decoder.log


def test_float16(lab: Lab) -> None:
    """The weights as downloaded: the engines start, and the answer is no answer."""

    def prepare(servers: dict[str, Any]) -> None:
        for server in servers.values():
            server.write_model(torch_dtype="float16")

    assert set(start_pair(lab, nodes=1, pcp=1, prepare=prepare).answer()) == {"!"}


def test_missing_shard_of_a_quantized_model(lab: Lab) -> None:
    """Nothing checks a quantized model for completeness: it loads what is there."""

    def prepare(servers: dict[str, Any]) -> None:
        next(iter((servers["prefill0"].root / "model").glob("*.safetensors"))).unlink()

    pair = start_pair(lab, nodes=1, pcp=1, prepare=prepare)
    assert "4/4" in pair.prefiller.log
    assert is_garbage(pair.answer())


def test_a_prefiller_that_computes_garbage(lab: Lab) -> None:
    """Its KV cache is wrong, and so is what the decoder makes of it; the prefiller itself looks well."""
    pair = start_pair(lab, nodes=1, pcp=1)
    pair.servers["prefill0"].fault("engine_garbage", role="prefiller")
    assert is_garbage(pair.answer(request_id="wrong"))
    pair.servers["prefill0"].heal()
    assert pair.answer(request_id="right") == RIGHT


def test_a_prefiller_that_says_nothing_hands_nothing_over(lab: Lab) -> None:
    """As an end token at once: the right answer, but computed by the decoder."""
    pair = start_pair(lab, nodes=1, pcp=1)
    pair.servers["prefill0"].fault("engine_empty")
    kv = {"do_remote_decode": True, "do_remote_prefill": False}
    answer = pair.prefiller.complete(max_tokens=1, kv_transfer_params=kv)
    assert answer["kv_transfer_params"] is None


def test_each_side_notes_with_whom_it_served(lab: Lab) -> None:
    """Once for each process there, also of a prefiller that came back as something else."""

    def prepare(servers: dict[str, Any]) -> None:
        servers["decode"].write_model(num_hidden_layers=60)

    pair = start_pair(lab, nodes=1, pcp=1, prepare=prepare, env={"PD_SIM_GENERATION": "1"})
    assert pair.servers["decode"].served() == []
    for number in range(2):
        pair.answer(request_id=f"r{number}")
    pair.restart_prefiller(lab, PD_SIM_GENERATION="2")
    pair.answer(request_id="again")
    here, there = (pair.servers[name].served() for name in ("decode", "prefill0"))
    assert [line["peer"]["generation"] for line in here] == ["1", "2"]
    assert [line["engine"]["generation"] for line in there] == ["1", "2"]
    assert here[0]["engine"] == there[0]["peer"]
    assert here[0]["engine"]["role"] == "decoder"
    assert here[0]["peer"]["release"] == "v0.13.0"
    assert here[0]["peer"]["model"] != here[0]["engine"]["model"]
    assert pair.decoder.log.count("[pd-sim] serves with ") == 2


def came_back(lab: Lab, release: str, **env: str) -> Pair:
    """A prefiller that served, and started again with the same ports of Mooncake."""

    def prepare(servers: dict[str, Any]) -> None:
        servers["prefill0"].fault("engine_te_port", first=free_port())

    pair = start_pair(
        lab, tp=1, pcp=1, dcp=1, nodes=1, decode_tp=1, prepare=prepare, release=release, decoder_env=dict(env)
    )
    assert pair.answer(request_id="before") == RIGHT
    pair.restart_prefiller(lab)
    return pair


def test_first_release_believes_a_stale_descriptor_for_ever(lab: Lab) -> None:
    """As long as the decoder lives, with status 200."""
    pair = came_back(lab, "v0.13.0")
    assert all(is_garbage(pair.answer(request_id=f"stale{number}")) for number in range(3))
    assert "Mooncake transfer failed for request cmpl-stale0-0" in pair.decoder.log
    assert pair.decoder.request("/health")[0] == pair.prefiller.request("/health")[0] == 200


def test_first_release_without_the_cache_of_descriptors(lab: Lab) -> None:
    assert came_back(lab, "v0.13.0", MC_DISABLE_METACACHE="1").answer() == RIGHT


def test_other_ports_have_other_descriptors(lab: Lab) -> None:
    pair = came_back(lab, "v0.13.0")
    pair.servers["prefill0"].fault("engine_te_port", first=free_port())
    pair.restart_prefiller(lab)
    assert pair.answer() == RIGHT


def test_a_later_release_forgets_a_stale_descriptor_that_fails(lab: Lab) -> None:
    pair = came_back(lab, "v0.18.0")
    assert is_garbage(pair.answer(request_id="first"))
    assert pair.answer(request_id="second") == RIGHT


def lose(lab: Lab, release: str, policy: str | None = None) -> tuple[Pair, tuple[int, str]]:
    """A pair, and the decoder's answer to a request whose blocks nobody holds any more."""
    pair = start_pair(lab, nodes=1, pcp=1, dcp=1, release=release, policy=policy)
    given = pair.prefill()
    pair.prefiller.kill()
    body = {"prompt": QUESTION, "max_tokens": 12, "kv_transfer_params": given}
    return pair, pair.decoder.request("/v1/completions", body)


@pytest.mark.parametrize("release", OLD)
def test_lost_transfer_is_answered(lab: Lab, release: str) -> None:
    pair, (status, text) = lose(lab, release)
    assert status == 200
    assert is_garbage(json.loads(text)["choices"][0]["text"])
    assert "Failed to transfer KV cache for request" in pair.decoder.log


def test_lost_transfer_fails_its_request_later(lab: Lab) -> None:
    """No other request, and not the engine; in a stream it is an error under status 200."""
    pair, (status, text) = lose(lab, "v0.23.0")
    assert (status, json.loads(text)["error"]["message"]) == (500, "Internal server error")
    assert "Failing 1 request(s) due to KV load failure (failure_policy=fail" in pair.decoder.log
    assert pair.decoder.metric("vllm:request_success_total", finished_reason="error") == 1
    assert pair.decoder.complete()["choices"][0]["text"] == RIGHT
    pair.restart_prefiller(lab)
    given = pair.prefill(request_id="r2")
    pair.prefiller.kill()
    body = {"prompt": QUESTION, "stream": True, "kv_transfer_params": given}
    status, text = pair.decoder.request("/v1/completions", body)
    assert (status, '"code": 500' in text) == (200, True)
    assert pair.decoder.request("/health")[0] == 200


def test_lost_transfer_is_recomputed_where_that_is_wanted(lab: Lab) -> None:
    pair, (status, text) = lose(lab, "v0.23.0", policy="recompute")
    assert (status, json.loads(text)["choices"][0]["text"]) == (200, RIGHT)
    assert "Recovered from KV load failure: 1 request(s) rescheduled" in pair.decoder.log
    source = "vllm:prompt_tokens_by_source_total"
    assert pair.decoder.metric(source, source="local_compute") == 5
    assert pair.decoder.metric(source, source="external_kv_transfer") == 0


def test_stale_descriptor_fails_one_request_later(lab: Lab) -> None:
    pair = came_back(lab, "v0.23.0")
    body = {"prompt": QUESTION, "kv_transfer_params": pair.prefill(request_id="first")}
    assert pair.decoder.request("/v1/completions", body)[0] == 500
    assert pair.answer(request_id="second") == RIGHT
