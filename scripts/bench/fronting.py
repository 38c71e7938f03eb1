"""Front and routers, before engines that answer at once: what they cost."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clusters
from runs import BIN, ROOT, playbook

FILES = ROOT / "scripts" / "bench" / "front"
NAME, KEY = "models.example", "sk-of-the-client-0123456789-0123456789"
CLIENTS = 64
#: Milliseconds between two tokens of a stream: 64 streams ask for 64,000 a second, more than can be had.
TOKEN_MS = 1.0
#: Each figure is the median of so many turns; in a turn, each of the ways has so many seconds.
TURNS, SHORT_SECONDS, STREAM_SECONDS = 3, 3, 5
ROUTERS = ("vllm_router", "upstream")
SERVER = "server1"


def inventory() -> Path:
    """One server with a prefiller, a decoder and a front."""
    folder = clusters.fresh("front")
    host: dict[str, Any] = {SERVER: None}
    content = {
        "all": {
            "vars": {
                "pd_image_source": "archive",
                "pd_image_archive": "/opt/pd-sim/images/vllm-ascend.tar",
                "pd_image": "ascend/vllm-ascend:v0.13.0-a3",
                "pd_profile": "generic",
                "pd_model_path": clusters.MODEL,
                "pd_served_model_name": "deepseek_v3",
                "pd_parallel": {"tensor": 4},
                "pd_engine_args": {"quantization": "ascend", "max-model-len": 4096, "enforce-eager": True},
                "pd_api_key": "a-key-of-the-engines",
                "pd_front_port": 8443,
                "pd_front_name": NAME,
                "pd_front_api_keys": {"client": KEY},
                **{
                    f"pd_front_{what}": f"{{{{ inventory_dir }}}}/../certificates/{file}"
                    for what, file in (
                        ("certificate", "front.pem"),
                        ("certificate_key", "front.key"),
                        ("ca", "ca.pem"),
                    )
                },
                "sim_packages": ["haproxy", "wrk"],
                "sim_server": {"timing": {"load_seconds": 0.2, "query_seconds": 0.01, "ping_seconds": 0.1}},
            }
        },
        "prefiller": {"hosts": host, "vars": {"pd_chips": [0, 1, 2, 3]}},
        "decoder": {"hosts": host, "vars": {"pd_chips": [4, 5, 6, 7], "pd_api_port": 8104}},
        "proxy": {"hosts": host},
    }
    (folder / "hosts.yml").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


class Server:
    """The simulated server, on which all of it runs."""

    def __init__(self, servers: clusters.Servers) -> None:
        self.address = servers.addresses[SERVER]
        self._ssh = ["ssh", "-F", str(servers.state / "ssh_config"), SERVER]

    def run(self, command: str, given: str = "") -> str:
        done = subprocess.run([*self._ssh, command], input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def copy(self, name: str) -> None:
        self.run(f"cat > /root/{name}", (FILES / name).read_text(encoding="utf-8"))

    @contextmanager
    def fast_engines(self) -> Iterator[None]:
        """Engines that answer at once, in the place of the simulated ones; the routers do not notice."""
        self.run("docker stop -t 2 pd-prefiller pd-decoder")
        for port in (8004, 8104):
            self.run(
                f"systemd-run --quiet --unit bench-{port} python3 /root/engine.py {port} {TOKEN_MS} 2>&1"
            )
        body = json.dumps({"model": "deepseek_v3", "prompt": "a", "max_tokens": 1})
        ask = f"curl -fsS -H 'Content-Type: application/json' -d '{body}' {self.router()}/v1/completions"
        # Until the router's health check has noticed.
        self.run("timeout 60 sh -s 2>&1", f"until {ask}; do sleep 0.2; done\n")
        yield
        self.run("systemctl stop bench-8004 bench-8104")
        self.run("docker start pd-prefiller pd-decoder")

    def wrk(self, url: str, clients: int, seconds: int, *, stream: bool) -> dict[str, float]:
        """Requests from so many clients for so long: requests a second, milliseconds at percentiles."""
        command = (
            f"STREAM={str(stream).lower()} KEY={KEY} wrk --threads {min(clients, 2)} --connections {clients}"
            f" --duration {seconds}s --timeout 60s --latency --script /root/wrk.lua {url}/v1/completions"
        )
        line = next(line for line in self.run(command).splitlines() if line.startswith("{"))
        said = json.loads(line)
        if said["failed"] or not said["requests"]:
            raise SystemExit(f"{url}: {said}")
        return {"rate": said["requests"] / said["seconds"], "p50": said["p50"], "p99": said["p99"]}

    def router(self) -> str:
        """The URL of the router that serves."""
        colour = self.run("cat /etc/pd_rollout/pd/front/router.map").split()[1]
        return f"http://127.0.0.1:{ {'blue': 8005, 'green': 8006}[colour] }"


def measure(report: dict[str, Any]) -> None:
    """Short answers and streams through the engine alone, the router, and the front with the router."""
    print("Front and routers before engines that answer at once")
    figures: dict[str, Any] = {}
    with clusters.Servers(inventory()) as servers:
        certificates = ROOT / "molecule" / "front" / "files" / "certificates.py"
        subprocess.run(
            [str(BIN / "python"), str(certificates), str(servers.state / "certificates")], check=True
        )
        server = Server(servers)
        for name in ("engine.py", "wrk.lua"):
            server.copy(name)
        for router in ROUTERS:
            deployed = playbook(
                "-i", str(servers.inventory), "playbooks/deploy.yml", "-e", f"pd_router={router}"
            )
            if deployed.returncode:
                raise SystemExit("the front could not be deployed")
            with server.fast_engines():
                figures[router] = ways(server)
            show(router, figures[router])
    ratio(figures)
    report["front"] = figures


def ways(server: Server) -> dict[str, dict[str, dict[str, float]]]:
    """Each kind of request on each way, all ways in turn: {kind: {way: figures}}."""
    urls = {
        "engine": f"http://{server.address}:8104",
        "router": server.router(),
        "front": f"https://{server.address}:8443",
    }
    kinds = {
        "one client": (1, SHORT_SECONDS, False),
        "short": (CLIENTS, SHORT_SECONDS, False),
        "stream": (CLIENTS, STREAM_SECONDS, True),
    }
    found: dict[str, dict[str, list[dict[str, float]]]] = {kind: {way: [] for way in urls} for kind in kinds}
    for _ in range(TURNS):
        for kind, (clients, seconds, stream) in kinds.items():
            for way, url in urls.items():
                found[kind][way].append(server.wrk(url, clients, seconds, stream=stream))
    return {
        kind: {
            way: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
            for way, turns in by_way.items()
        }
        for kind, by_way in found.items()
    }


def show(router: str, figures: dict[str, dict[str, dict[str, float]]]) -> None:
    for kind, by_way in figures.items():
        alone = by_way["engine"]
        for way, one in by_way.items():
            added = {key: one[key] - alone[key] for key in ("p50", "p99")}
            print(
                f"  {router:<12} {kind:<11} {way:<7} {one['rate']:9.1f} requests/s"
                f"   p50 {one['p50']:8.2f} ms ({added['p50']:+.2f}),"
                f" p99 {one['p99']:8.2f} ms ({added['p99']:+.2f})"
            )


def ratio(figures: dict[str, Any]) -> None:
    for kind in ("short", "stream"):
        fast, slow = (figures[router][kind]["front"]["rate"] for router in ROUTERS)
        alone = figures["vllm_router"][kind]["router"]["rate"]
        print(
            f"  {kind}: vllm-router with the front {fast / slow:.1f} times the upstream script with it,"
            f" {fast / alone:.2f} times vllm-router without it"
        )
