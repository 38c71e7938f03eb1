"""Simulated engines as processes on loopback: a server is a folder, an engine an address of 127.0.0.0/8."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOTFS = ROOT / "simulator" / "engine" / "rootfs"
VLLM = ROOTFS / "usr" / "local" / "bin" / "vllm"
ATB = "/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_1/lib"
SHARDS = 5
CACHE = Path(tempfile.gettempdir()) / f"pd-sim-pycache-{os.getuid()}"
TIMING = {
    "start_seconds": 0.1,
    "load_seconds": 0.2,
    "capture_seconds": 0.1,
    "token_seconds": 0.001,
    "prefill_seconds_per_1k": 0.001,
    "hccl_connect_timeout_scale": 1.0,
    "watchdog_seconds": 0.3,
}
MODEL = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "num_hidden_layers": 61,
    "kv_lora_rank": 512,
    "n_routed_experts": 256,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
QUESTION = "The capital of France is"


CLAIMS = Path(tempfile.gettempdir()) / f"pd-sim-claims-{os.getuid()}"
_claimed: list[Any] = []


def claim(name: str) -> bool:
    """Whether this process now holds a name that no other test process on this machine holds."""
    CLAIMS.mkdir(exist_ok=True)
    lock = (CLAIMS / name).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _claimed.append(lock)
    return True


def network() -> str:
    """A prefix of loopback addresses for one test: no other uses it at the same time."""
    while True:
        prefix = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        if claim(prefix):
            return prefix


def free_port() -> int:
    """A port that no other test takes, and above those that the system and the engines take at random."""
    while True:
        port = random.randint(62000, 65500)
        if claim(str(port)):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("", port))
                return port


@dataclass
class Server:
    """The folder that stands for a server's root."""

    root: Path
    chips: int = 16

    def __post_init__(self) -> None:
        for folder in (
            "dev",
            "etc",
            "model",
            "root",
            "usr/local/Ascend/driver/lib64",
            "usr/local/dcmi/pd-sim",
        ):
            (self.root / folder).mkdir(parents=True)
        for name in (
            *(f"davinci{chip}" for chip in range(self.chips)),
            "davinci_manager",
            "devmm_svm",
            "hisi_hdc",
        ):
            (self.root / "dev" / name).touch()
        (self.root / "usr/local/Ascend/driver/lib64/libascend_hal.so").touch()
        library = self.root / ATB.lstrip("/")
        library.mkdir(parents=True)
        (library / "libatb.so").touch()
        (self.root / "etc/hccn.conf").write_text("address_0=11.12.1.1\n", encoding="utf-8")
        self.state(timing=TIMING)
        self.write_model()

    def state(self, **values: Any) -> None:
        path = self.root / "usr/local/dcmi/pd-sim/server.json"
        path.write_text(json.dumps({"soc": "Ascend910_9391", **values}), encoding="utf-8")

    def fault(self, name: str, **parameters: Any) -> None:
        path = self.root / "usr/local/dcmi/pd-sim/faults.json"
        path.write_text(json.dumps({name: parameters}), encoding="utf-8")

    def served(self) -> list[dict[str, Any]]:
        """The record of who has served requests with whom, by engines of this server."""
        path = self.root / "usr/local/dcmi/pd-sim/served.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def heal(self) -> None:
        (self.root / "usr/local/dcmi/pd-sim/faults.json").write_text("{}", encoding="utf-8")

    def write_model(self, **changes: Any) -> None:
        folder = self.root / "model"
        (folder / "config.json").write_text(json.dumps(MODEL | changes), encoding="utf-8")
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        (folder / "quant_model_description_w8a8_dynamic.json").write_text("{}", encoding="utf-8")
        names = [
            f"quant_model_weight-{number:05d}-of-{SHARDS:05d}.safetensors" for number in range(1, SHARDS + 1)
        ]
        header = json.dumps({"w": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}}).encode()
        for name in names:
            (folder / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
        (folder / "quant_model_weight.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


@dataclass
class Running:
    """One engine process."""

    process: subprocess.Popen[bytes]
    log_path: Path
    address: str
    port: int

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.port}{path}"

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Until the log holds the text. A process that ends before fails the test with its log."""
        until = time.monotonic() + seconds
        while True:
            # First whether it has ended, then what it wrote: the text may be the last that it says.
            code = self.process.poll()
            if text in self.log:
                return
            assert code is None, f"ended with {code}:\n{self.log[-4000:]}"
            assert time.monotonic() < until, f"no {text!r} in {seconds} s:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Until it holds; the log tells why it does not."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"not in {seconds} s:\n{self.log[-4000:]}"
            time.sleep(0.05)

    def ready(self) -> Running:
        self.wait_for("Application startup complete.")
        return self

    def ends(self, seconds: float = 60.0) -> int:
        """The exit code."""
        return self.process.wait(timeout=seconds)

    def stop(self) -> None:
        """SIGTERM, and not waited for the end."""
        self.process.send_signal(signal.SIGTERM)

    def terminate(self) -> tuple[int, float]:
        """(exit code, seconds) of SIGTERM."""
        begun = time.monotonic()
        self.stop()
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - begun

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(timeout=10)

    def request(
        self, path: str, body: Any = None, *, key: str | None = None, request_id: str | None = None
    ) -> tuple[int, str]:
        """(status, body)."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if request_id:
            headers["X-Request-Id"] = request_id
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def complete(self, prompt: str = QUESTION, **options: Any) -> dict[str, Any]:
        """A completion's answer; the status must be 200."""
        request_id = options.pop("request_id", None)
        body = {"model": "deepseek_v3", "prompt": prompt, "max_tokens": 12, **options}
        status, text = self.request("/v1/completions", body, request_id=request_id)
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series."""
        total = 0.0
        for line in self.request("/metrics")[1].splitlines():
            found = re.match(rf"{re.escape(name)}\{{(.*)\}} (\S+)$", line)
            if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += float(found[2])
        return total


class Stream:
    """A streamed completion that is read bit by bit; to close."""

    def __init__(self, engine: Running, **options: Any) -> None:
        body = {"model": "deepseek_v3", "prompt": QUESTION, "stream": True, **options}
        self.connection = http.client.HTTPConnection(engine.address, engine.port, timeout=60)
        self.connection.request("POST", "/v1/completions", json.dumps(body))
        self.response = self.connection.getresponse()
        assert self.response.status == 200

    def event(self) -> str:
        """The next one; empty at the end."""
        while line := self.response.readline().decode():
            if line.strip():
                return line.removeprefix("data: ").strip()
        return ""

    def rest(self) -> list[str]:
        """All events to the end."""
        return list(iter(self.event, ""))

    def is_silent(self, seconds: float = 0.5) -> bool:
        """Whether nothing comes, not even the end. What had come before is thrown away."""
        assert self.connection.sock is not None
        self.connection.sock.settimeout(seconds)
        try:
            while self.connection.sock.recv(65536):
                pass
        except TimeoutError:
            return True
        return False

    def goes_on(self) -> bool:
        """Whether something more comes."""
        assert self.connection.sock is not None
        self.connection.sock.settimeout(60)
        return bool(self.connection.sock.recv(1))

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def post(engine: Running, body: dict[str, Any], request_id: str = "left") -> socket.socket:
    """Ask for a completion and do not wait. The connection, to close."""
    text = json.dumps({"model": "deepseek_v3", **body}).encode()
    client = socket.create_connection((engine.address, engine.port))
    head = ["POST /v1/completions HTTP/1.1", f"X-Request-Id: {request_id}", f"Content-Length: {len(text)}"]
    client.sendall("\r\n".join([*head, "", ""]).encode() + text)
    return client


@dataclass
class Lab:
    """What a test starts; all of it ends with the test."""

    folder: Path
    prefix: str = field(default_factory=network)
    engines: list[Running] = field(default_factory=list)
    count: int = 0

    def server(self, name: str, chips: int = 16) -> Server:
        return Server(self.folder / name, chips)

    def start(
        self,
        server: Server,
        *words: str,
        address: str | None = None,
        env: dict[str, str | None] | None = None,
    ) -> Running:
        """`vllm serve /model …` with a launch script's environment. A variable that is None is left out."""
        self.count += 1
        address = address or f"{self.prefix}.{self.count}"
        port = int(words[words.index("--port") + 1]) if "--port" in words else 8004
        environment: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "PD_SIM_ROOT": str(server.root),
            "LD_LIBRARY_PATH": ATB,
            "NO_COLOR": "1",
            "PYTHONPYCACHEPREFIX": str(CACHE),
            "VLLM_HOST_IP": address,
            "HCCL_IF_IP": address,
            "HCCL_SOCKET_IFNAME": "lo",
            "GLOO_SOCKET_IFNAME": "lo",
            "TP_SOCKET_IFNAME": "lo",
            **(env or {}),
        }
        log_path = self.folder / f"engine-{self.count}.log"
        given = list(words)
        for flag, value in (
            ("--host", address),
            ("--port", str(port)),
            ("--served-model-name", "deepseek_v3"),
        ):
            if flag not in given:
                given += [flag, value]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-S", str(VLLM), "serve", "/model", *given],
                env={key: value for key, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, log_path, address, port)
        self.engines.append(running)
        return running

    def close(self) -> None:
        for engine in self.engines:
            engine.kill()


def kv_config(role: str, port: int, engine_id: str, prefill_tp: int, decode_tp: int, **changes: Any) -> str:
    """--kv-transfer-config as the guide writes it."""
    config = {
        "kv_connector": "MooncakeConnectorV1",
        "kv_role": role,
        "kv_port": str(port),
        "engine_id": engine_id,
        "kv_connector_extra_config": {
            "prefill": {"dp_size": 1, "tp_size": prefill_tp},
            "decode": {"dp_size": 1, "tp_size": decode_tp},
        },
    }
    return json.dumps(config | changes)


# Above all ports that are taken at random, the system's for outgoing connections too.
KV_PORT = 61100
DECODE_KV_PORT = 61300
COMMON = ("--enable-expert-parallel", "--quantization", "ascend", "--gpu-memory-utilization", "0.96")


@dataclass
class Pair:
    """One prefiller of one or two nodes, one decoder."""

    nodes: list[Running]
    decoder: Running
    servers: dict[str, Server]
    commands: list[tuple[list[str], dict[str, str | None]]]
    """What each node of the prefiller was started with."""

    @property
    def prefiller(self) -> Running:
        return self.nodes[0]

    def prefill(self, prompt: str = QUESTION, request_id: str = "r1") -> dict[str, Any]:
        """The proxy's first step: the parameters for the decoder."""
        answer = self.prefiller.complete(
            prompt,
            request_id=request_id,
            max_tokens=1,
            min_tokens=1,
            kv_transfer_params={"do_remote_decode": True, "do_remote_prefill": False},
        )
        assert answer["choices"][0]["finish_reason"] == "length"
        parameters: dict[str, Any] = answer["kv_transfer_params"]
        return parameters

    def restart_prefiller(self, lab: Lab, **env: str) -> None:
        """Kill the prefiller, of one node, and start it again as it was, but for the environment."""
        self.prefiller.kill()
        words, before = self.commands[0]
        address = self.prefiller.address
        self.nodes[0] = lab.start(self.servers["prefill0"], *words, address=address, env={**before, **env})
        self.prefiller.ready()

    def tickle(self) -> None:
        """A request that only wakes the prefiller's engine core up."""
        self.prefiller.complete("x", max_tokens=1)

    def answer(self, prompt: str = QUESTION, request_id: str = "r1", **changes: Any) -> str:
        """The text of a request that goes the proxy's way."""
        parameters = self.prefill(prompt, request_id) | changes
        answer = self.decoder.complete(prompt, request_id=request_id, kv_transfer_params=parameters)
        return str(answer["choices"][0]["text"])


def start_pair(
    lab: Lab,
    *,
    tp: int = 2,
    pcp: int = 2,
    dcp: int = 2,
    nodes: int = 2,
    decode_tp: int = 2,
    decode_dcp: int = 1,
    believed_tp: int | None = None,
    ids: tuple[str, str, str] = ("0", "1", "3"),
    prepare: Any = None,
    env: dict[str, str | None] | None = None,
    release: str = "v0.13.0",
    ready: bool = True,
    more: tuple[str, ...] = (),
    decoder_env: dict[str, str | None] | None = None,
    policy: str | None = None,
) -> Pair:
    """Start a prefiller and a decoder. `believed_tp`: what the decoder's configuration says of the prefiller.

    `prepare(servers)` runs before the start; `env` and the words `more` are added to the prefiller's own,
    `decoder_env` and the `policy` for blocks that cannot be loaded to the decoder's.
    """
    chips = max(tp * pcp // nodes, decode_tp)
    servers = {f"prefill{node}": lab.server(f"prefill{node}", chips) for node in range(nodes)}
    servers["decode"] = lab.server("decode", chips)
    if prepare:
        prepare(servers)
    first = f"{lab.prefix}.11"
    env = {"PD_SIM_RELEASE": release, **(env or {})}
    words = [*COMMON, "--tensor-parallel-size", str(tp), "--prefill-context-parallel-size", str(pcp)]
    words += ["--decode-context-parallel-size", str(dcp), "--cp-kv-cache-interleave-size", "128"]
    words += ["--block-size", "128", "--enforce-eager", "--max-num-seqs", "1", "--no-enable-prefix-caching"]
    words += more
    master = free_port()
    started, commands = [], []
    for node in range(nodes):
        place = ["--nnodes", str(nodes), "--node-rank", str(node), "--master-addr", first]
        place += ["--master-port", str(master), *(["--headless"] if node else [])]
        place += ["--kv-transfer-config", kv_config("kv_producer", KV_PORT, ids[node], tp, decode_tp)]
        commands.append(([*words, *place], env))
        address = f"{lab.prefix}.{11 + node}"
        started.append(lab.start(servers[f"prefill{node}"], *words, *place, address=address, env=env))
    load_failure = {"kv_load_failure_policy": policy} if policy else {}
    decoder = lab.start(
        servers["decode"],
        *COMMON,
        "--tensor-parallel-size",
        str(decode_tp),
        "--decode-context-parallel-size",
        str(decode_dcp),
        "--cp-kv-cache-interleave-size",
        "128",
        "--max-num-seqs",
        "4",
        "--no-enable-prefix-caching",
        "--compilation-config",
        '{"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4]}',
        "--kv-transfer-config",
        kv_config("kv_consumer", DECODE_KV_PORT, ids[2], believed_tp or tp, decode_tp, **load_failure),
        address=f"{lab.prefix}.21",
        env={"PD_SIM_RELEASE": release, **(decoder_env or {})},
    )
    pair = Pair(started, decoder, servers, commands)
    if ready:
        pair.prefiller.ready()
        decoder.ready()
    return pair
