"""MooncakeLayerwiseConnector: the decoder is asked first, and the prefiller pushes into it."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from .harness import (
    COMMON,
    DECODE_KV_PORT,
    KV_PORT,
    QUESTION,
    Lab,
    Running,
    Server,
    free_port,
    kv_config,
    post,
)

RIGHT = " Paris, and has been for a long time."
RELEASES = ["v0.13.0", "v0.18.0", "v0.23.0"]


class Proxy:
    """What the layerwise proxy does between its clients, a decoder and a prefiller."""

    def __init__(self, prefiller: Running, decoder: Running) -> None:
        self.prefiller, self.decoder = prefiller, decoder
        self.changes: dict[str, Any] = {}
        """Laid over what the decoder tells."""
        self.before: Callable[[], None] | None = None
        """Called before a prefiller is asked."""
        self.told: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.prompts: dict[str, str] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.prefill(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def metaserver(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1/metaserver"

    def prefill(self, told: dict[str, Any]) -> None:
        self.told.append(told)
        if self.before is not None:
            self.before()
        request_id = told["request_id"].removeprefix("cmpl-").removesuffix("-0")
        body = {"prompt": self.prompts[request_id], "max_tokens": 1, "min_tokens": 1}
        status, _ = self.prefiller.request(
            "/v1/completions", body | {"kv_transfer_params": told | self.changes}, request_id=request_id
        )
        self.statuses.append(status)

    def ask(self, prompt: str = QUESTION, request_id: str = "r1") -> tuple[int, str]:
        """(status, text or body)."""
        self.prompts[request_id] = prompt
        kv = {"do_remote_decode": False, "do_remote_prefill": True, "metaserver": self.metaserver}
        body = {"prompt": prompt, "max_tokens": 12, "kv_transfer_params": kv}
        status, text = self.decoder.request("/v1/completions", body, request_id=request_id)
        return status, json.loads(text)["choices"][0]["text"] if status == 200 else text

    def leave(self, request_id: str = "left") -> socket.socket:
        """Ask and do not wait. The connection, to close."""
        self.prompts[request_id] = QUESTION
        kv = {"do_remote_prefill": True, "metaserver": self.metaserver}
        body = {"prompt": QUESTION, "max_tokens": 12, "kv_transfer_params": kv}
        return post(self.decoder, body, request_id)


def layerwise(role: str, port: int, engine_id: str, prefill_tp: int, decode_tp: int, **changes: Any) -> str:
    given = {"kv_connector": "MooncakeLayerwiseConnector", **changes}
    return kv_config(role, port, engine_id, prefill_tp, decode_tp, **given)


class Setup:
    """A prefiller and a decoder of one server each."""

    def __init__(
        self,
        lab: Lab,
        *,
        release: str = "v0.13.0",
        tp: int = 4,
        decode_tp: int = 2,
        model: dict[str, Any] | None = None,
        prepare: Any = None,
    ) -> None:
        self.servers = {name: lab.server(name, chips=tp) for name in ("prefill", "decode")}
        if model is not None:
            for server in self.servers.values():
                server.write_model(**model)
        if prepare:
            prepare(self.servers)
        env: dict[str, str | None] = {"PD_SIM_RELEASE": release}
        words = [*COMMON, "--enforce-eager", "--no-enable-prefix-caching", "--tensor-parallel-size"]
        self.decoder = lab.start(
            self.servers["decode"],
            *(*words, str(decode_tp), "--max-num-seqs", "2", "--kv-transfer-config"),
            layerwise("kv_consumer", DECODE_KV_PORT, "1", tp, decode_tp),
            address=f"{lab.prefix}.21",
            env=env,
        )
        self.prefiller = lab.start(
            self.servers["prefill"],
            *(*words, str(tp), "--kv-transfer-config"),
            layerwise("kv_producer", KV_PORT, "0", tp, decode_tp),
            address=f"{lab.prefix}.11",
            env=env,
        )
        self.decoder.ready()
        self.prefiller.ready()
        self.proxy = Proxy(self.prefiller, self.decoder)


@pytest.fixture
def setups(lab: Lab) -> Iterator[Any]:
    """Makes a Setup; its proxy ends with the test."""
    made: list[Setup] = []

    def make(**options: Any) -> Setup:
        made.append(Setup(lab, **options))
        return made[-1]

    yield make
    for setup in made:
        setup.proxy.server.shutdown()
        setup.proxy.server.server_close()


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == 0


def is_garbage(text: str) -> bool:
    words = text.split()
    return bool(words) and not text.startswith(" Paris") and len(set(words)) <= 2 < len(words)


@pytest.mark.parametrize("release", RELEASES)
def test_the_prefiller_pushes_and_the_decoder_listens(setups: Any, release: str) -> None:
    setup = setups(release=release)
    assert setup.proxy.ask() == (200, RIGHT)
    assert setup.proxy.ask("What is 6 times 7?", "r2") == (200, " 42.")
    told = setup.proxy.told[0]
    assert (told["remote_host"], told["remote_port"]) == (setup.decoder.address, DECODE_KV_PORT)
    assert told["request_id"] == "cmpl-r1-0"
    assert told["remote_engine_id"].startswith("1-")
    assert isinstance(told["remote_block_ids"][0], int if release == "v0.13.0" else list)
    assert ("remote_tp_size" in told) == (release != "v0.13.0")
    assert all(listens(setup.decoder.address, DECODE_KV_PORT + rank) for rank in range(2))
    assert not any(listens(setup.prefiller.address, KV_PORT + rank) for rank in range(4))
    assert "Sending done sending signal for request cmpl-r1-0 to" in setup.prefiller.log
    assert setup.decoder.metric("vllm:kv_cache_usage_perc") == 0
    # The decoder may answer before the prefiller has ended its part. Nothing waits to be fetched.
    setup.prefiller.wait_until(lambda: setup.prefiller.metric("vllm:kv_cache_usage_perc") == 0)


def test_several_at_once(setups: Any) -> None:
    """More than the decoder's slots: the others wait their turn."""
    setup = setups()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: setup.proxy.ask(request_id=f"n{number}"), range(8)))
    assert answers == [(200, RIGHT)] * 8


def test_attention_heads_of_one_decoder_chip_come_from_several(setups: Any) -> None:
    """GQA: 8 heads on 4 chips there, on 2 here; each decoder chip gets its heads of two prefiller chips."""
    setup = setups(
        model={"kv_lora_rank": None, "num_key_value_heads": 8, "architectures": ["Qwen3MoeForCausalLM"]}
    )
    assert setup.proxy.ask() == (200, RIGHT)
    assert setup.prefiller.log.count("Sending done sending signal for request cmpl-r1-0 to") == 4


def test_context_parallel_prefiller_of_two_nodes(lab: Lab) -> None:
    """From v0.21 on: TP 2 × PCP 2, each node with its half of the context."""
    env: dict[str, str | None] = {"PD_SIM_RELEASE": "v0.23.0"}
    master = free_port()
    nodes = []
    for node in range(2):
        words = [*COMMON, "--enforce-eager", "--no-enable-prefix-caching", "--tensor-parallel-size", "2"]
        words += ["--prefill-context-parallel-size", "2", "--cp-kv-cache-interleave-size", "128"]
        words += ["--nnodes", "2", "--node-rank", str(node), "--master-addr", f"{lab.prefix}.11"]
        words += ["--master-port", str(master), *(["--headless"] if node else [])]
        words += ["--kv-transfer-config", layerwise("kv_producer", KV_PORT, "0", 2, 2)]
        server = lab.server(f"prefill{node}", chips=2)
        nodes.append(lab.start(server, *words, address=f"{lab.prefix}.{11 + node}", env=env))
    decoder = lab.start(
        lab.server("decode", chips=2),
        *(*COMMON, "--enforce-eager", "--tensor-parallel-size", "2", "--kv-transfer-config"),
        layerwise("kv_consumer", DECODE_KV_PORT, "1", 2, 2),
        address=f"{lab.prefix}.21",
        env=env,
    )
    proxy = Proxy(nodes[0].ready(), decoder.ready())
    assert proxy.ask() == (200, RIGHT)
    assert all("Sending done sending signal for request cmpl-r1-0" in node.log for node in nodes)
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_weights_or_transport_that_spoil_the_blocks(setups: Any, where: str) -> None:
    def prepare(servers: dict[str, Server]) -> None:
        (servers[where].root / "etc/hccn.conf").unlink()

    status, text = setups(prepare=prepare).proxy.ask()
    assert (status, is_garbage(text)) == (200, True)


@pytest.mark.parametrize("release", RELEASES)
def test_wrong_port(setups: Any, release: str) -> None:
    """The prefiller of v0.13.0 dies of it; later ones go on, and leave the decoder waiting."""
    setup = setups(release=release)
    setup.proxy.changes = {"remote_port": DECODE_KV_PORT + 500}
    client = setup.proxy.leave()
    setup.prefiller.wait_for("Failed to receive data after 3 retries: Receive timeout")
    if release == "v0.13.0":
        assert setup.prefiller.ends() == 0
        assert "UnboundLocalError: cannot access local variable 'agent_meta'" in setup.prefiller.log
    else:
        setup.prefiller.wait_for("MooncakeLayerwiseConnector transfer fail for req_id cmpl-left-0")
        assert setup.prefiller.request("/health")[0] == 200
    assert setup.decoder.request("/health")[0] == 200
    assert setup.decoder.metric("vllm:num_requests_waiting") == 1, "without a limit"
    client.close()
    setup.decoder.wait_until(lambda: setup.decoder.metric("vllm:num_requests_waiting") == 0)
    assert setup.decoder.metric("vllm:kv_cache_usage_perc") == 0


def test_nobody_at_the_metaserver(setups: Any) -> None:
    """Three tries, then the request waits; the service is healthy."""
    setup = setups()
    setup.proxy.server.shutdown()
    setup.proxy.server.server_close()
    client = setup.proxy.leave()
    setup.decoder.wait_for("Access metaserver fail: ")
    assert setup.decoder.log.count("Failed to connect to metaserver: http://") == 3
    assert setup.decoder.request("/health")[0] == 200
    client.close()
    setup.decoder.wait_until(lambda: setup.decoder.metric("vllm:num_requests_waiting") == 0)


@pytest.mark.parametrize("release", RELEASES)
def test_decoder_that_is_gone_and_known(setups: Any, release: str) -> None:
    """The prefiller has its ports, and writes to nobody: an error in its log, and no more."""
    setup = setups(release=release)
    assert setup.proxy.ask() == (200, RIGHT)
    told = setup.proxy.told[0]
    # The decoder may answer before the prefiller does.
    setup.prefiller.wait_until(lambda: setup.proxy.statuses == [200])
    setup.decoder.kill()
    setup.proxy.prompts["r1"] = QUESTION
    setup.proxy.prefill(told)
    assert setup.proxy.statuses == [200, 200]
    assert "Mooncake transfer failed for send requests ['cmpl-r1-0'] kv cache to" in setup.prefiller.log
    assert setup.prefiller.request("/health")[0] == 200


@pytest.mark.parametrize(("release", "wanted"), [("v0.13.0", 200), ("v0.18.0", 200), ("v0.23.0", 500)])
def test_failed_transfer(setups: Any, release: str, wanted: int) -> None:
    """Until v0.18 the decoder goes on with what its blocks hold; from v0.23 it is told, and answers 500."""
    setup = setups(release=release)
    assert setup.proxy.ask() == (200, RIGHT)
    decoder = setup.decoder.process

    def stop() -> None:
        decoder.send_signal(signal.SIGSTOP)
        threading.Thread(target=go_on).start()

    def go_on() -> None:
        setup.prefiller.wait_for("Mooncake transfer failed for send requests ['cmpl-r2-0'] kv cache to")
        decoder.send_signal(signal.SIGCONT)

    setup.proxy.before = stop
    status, text = setup.proxy.ask(request_id="r2")
    assert status == wanted, text
    assert is_garbage(text) if wanted == 200 else "Internal server error" in text
    setup.proxy.before = None
    assert setup.proxy.ask(request_id="r3") == (200, RIGHT)


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("v0.13.0", "TypeError: object of type 'NoneType' has no len()"),
        ("v0.18.0", "KeyError: 'remote_cached_tokens'"),
    ],
)
def test_the_other_connectors_proxy_asks_the_prefiller_first(setups: Any, release: str, message: str) -> None:
    setup = setups(release=release)
    kv = {"do_remote_decode": True, "do_remote_prefill": False, "remote_block_ids": None}
    body = {"prompt": QUESTION, "max_tokens": 1, "kv_transfer_params": kv}
    assert setup.prefiller.request("/v1/completions", body)[0] == 500
    assert message in setup.prefiller.log
    assert setup.prefiller.ends() == 0


def test_this_connectors_proxy_and_the_other_decoder(lab: Lab) -> None:
    """It waits for blocks that nobody has named."""
    config = kv_config("kv_consumer", DECODE_KV_PORT, "1", 1, 1)
    decoder = lab.start(
        lab.server("decode", chips=1), *COMMON, "--enforce-eager", "--kv-transfer-config", config
    )
    decoder.ready()
    kv = {
        "do_remote_decode": False,
        "do_remote_prefill": True,
        "metaserver": "http://127.0.0.1:9/v1/metaserver",
    }
    status, _ = decoder.request("/v1/completions", {"prompt": QUESTION, "kv_transfer_params": kv})
    assert status == 500
    assert "AssertionError" in decoder.log
    assert decoder.ends() == 0


def test_port_is_taken(lab: Lab) -> None:
    """Only a thread ends, and the start waits for it for ever."""
    address = f"{lab.prefix}.21"
    config = layerwise("kv_consumer", DECODE_KV_PORT, "1", 2, 2)
    words = (*COMMON, "--enforce-eager", "--tensor-parallel-size", "2", "--kv-transfer-config", config)
    with socket.socket() as other:
        other.bind((address, DECODE_KV_PORT + 1))
        other.listen()
        decoder = lab.start(lab.server("decode", chips=2), *words, address=address)
        decoder.wait_for("Exception in thread KVCacheRecvingLayerThread")
        decoder.wait_for(
            f"zmq.error.ZMQError: Address already in use (addr='tcp://{address}:{DECODE_KV_PORT + 1}')"
        )
    assert decoder.process.poll() is None
    assert "Application startup complete." not in decoder.log
