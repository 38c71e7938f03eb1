"""The launch scripts of the shipped inventories, run up to `vllm`, are commands that the real vLLM takes,
with the plan's values: of those that name this release, and of all others planned for it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, VERSION, plans

RELEASE = f"v{VERSION}"
OWN = "as-written"
STUBS = {
    # Servers of one script wait for each other, as the script ends with the first that does.
    "vllm": """#!/bin/sh
printf '%s\\0' "${ASCEND_RT_VISIBLE_DEVICES-}" "$@" > "$PD_CALLS/.$$"
mv "$PD_CALLS/.$$" "$PD_CALLS/$$"
until [ "$(ls "$PD_CALLS" | wc -l)" -ge "$PD_SERVERS" ]; do sleep 0.05; done
""",
    # The scripts ask Python for the interface that holds the address: this machine has none such.
    "python3": "#!/bin/sh\ncat >/dev/null\necho eth0\n",
}


@dataclass(frozen=True)
class Script:
    """One launch script, its engine in the plan, and the engine's servers."""

    planned_for: str
    inventory: str
    host: str
    path: Path
    engine: dict[str, Any]
    parallel: dict[str, int]

    def __str__(self) -> str:
        return f"{self.planned_for}/{self.inventory}/{self.host}/{self.path.stem}"

    @property
    def servers(self) -> list[dict[str, Any]]:
        """With external data parallel one for each rank of the node."""
        return self.engine.get("ranks") or [self.engine]


@dataclass(frozen=True)
class Server:
    """One `vllm serve` of a script."""

    script: Script
    number: int

    def __str__(self) -> str:
        return f"{self.script}/{self.number}"

    @property
    def planned(self) -> dict[str, Any]:
        return self.script.servers[self.number]

    @property
    def argv(self) -> list[str]:
        argv: list[str] = self.planned["argv"]
        return argv


def plan_files() -> list[Path]:
    """The plans for this release."""
    found = []
    for path in sorted([*plans().glob(f"{OWN}/*/plan.json"), *plans().glob(f"{RELEASE}/*/plan.json")]):
        if json.loads(path.read_text(encoding="utf-8"))["release"]["vllm"] == VERSION:
            found.append(path)
    return found


def scripts() -> list[Script]:
    found = []
    for plan_file in plan_files():
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
        parallel = {instance["name"]: instance["parallel"] for instance in plan["instances"]}
        folder = plan_file.parent
        for host, part in plan["hosts"].items():
            for engine in part["engines"]:
                path = folder / host / f"{engine['instance']}.sh"
                size = parallel[engine["instance"]]
                found.append(Script(folder.parent.name, folder.name, host, path, engine, size))
    return found


SCRIPTS = scripts() if "PD_CONFORMANCE_PLANS" in os.environ else []
# Of many equal ranks the first and the last of each node say what all would.
SERVERS = [Server(script, number) for script in SCRIPTS for number in sorted({0, len(script.servers) - 1})]


def calls(script: Script, folder: Path) -> list[list[str]]:
    """What the script hands to `vllm`, each time: the chips of the rank, then the words."""
    for name, text in STUBS.items():
        stub = folder / name
        stub.write_text(text, encoding="utf-8")
        stub.chmod(0o755)
    made = folder / "calls"
    made.mkdir()
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "PD_CALLS": str(made),
        "PD_SERVERS": str(len(script.servers)),
    }
    subprocess.run(
        ["bash", str(script.path)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return [path.read_text(encoding="utf-8").split("\0")[:-1] for path in sorted(made.iterdir())]


@cache
def parsed_words(parser: Any, words: tuple[str, ...]) -> argparse.Namespace:
    """Words through the real parser and its checks."""
    from vllm.entrypoints.openai.cli_args import validate_parsed_serve_args

    args: argparse.Namespace = parser.parse_args(list(words))
    validate_parsed_serve_args(args)
    args.model = args.model_tag  # as the command does (V@0.13.0:vllm/entrypoints/cli/serve.py)
    return args


@pytest.fixture(params=SERVERS, ids=str)
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.param
    return chosen


@pytest.fixture
def parsed(server: Server, real_parser: Any) -> argparse.Namespace:
    return parsed_words(real_parser, tuple(server.argv[1:]))


def test_every_inventory_is_planned_as_written() -> None:
    shipped = {path.parent.name for path in (ROOT / "inventory").glob("*/hosts.yml")}
    assert {path.parent.name for path in plans().glob(f"{OWN}/*/plan.json")} == shipped


def test_every_inventory_plans_for_this_release_or_says_what_must_change() -> None:
    shipped = {path.parent.name for path in (ROOT / "inventory").glob("*/hosts.yml")}
    planned = {path.parent.name for path in plans().glob(f"{RELEASE}/*/plan.json")}
    for name in shipped - planned:
        said = (plans() / RELEASE / name / "refused.txt").read_text(encoding="utf-8")
        assert re.search(r"\bPD\d{3}\b", said), said
        assert "Traceback" not in said
    assert planned


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_script_is_the_plans_argument_vectors(script: Script, tmp_path: Path) -> None:
    """Each server once, with its words; the ranks of external data parallel also with their own chips."""
    made = calls(script, tmp_path)
    if script.engine.get("ranks"):
        wanted = [(s["env"]["ASCEND_RT_VISIBLE_DEVICES"], *s["argv"][1:]) for s in script.servers]
    else:
        wanted = [(made[0][0], *s["argv"][1:]) for s in script.servers]
    assert Counter(map(tuple, made)) == Counter(wanted)


def test_values_are_the_plans(server: Server, parsed: argparse.Namespace) -> None:
    engine, planned, parallel = server.script.engine, server.planned, server.script.parallel
    assert parsed.model_tag == engine["model_path"]
    assert parsed.served_model_name == [engine["served_model_name"]]
    assert parsed.tensor_parallel_size == parallel["tensor"]
    assert parsed.prefill_context_parallel_size == parallel["prefill_context"]
    assert parsed.decode_context_parallel_size == parallel["decode_context"]
    assert parsed.pipeline_parallel_size == parallel["pipeline"]
    assert parsed.data_parallel_size == parallel["data"]
    assert parsed.headless == engine["headless"]
    if parsed.nnodes > 1:
        assert (parsed.nnodes, parsed.node_rank) == (engine["nnodes"], engine["node_rank"])
        assert (parsed.master_addr, parsed.master_port) == (
            engine["master"]["host"],
            engine["master"]["port"],
        )
    if "rank" in planned:
        assert parsed.data_parallel_rank == planned["rank"]
    elif parallel["data"] > 1:
        assert (parsed.data_parallel_start_rank or 0) == engine["data_parallel_rank"]
        assert parsed.data_parallel_size_local == engine["data_parallel_size_local"]
    if planned["api"] is not None:
        assert parsed.port == planned["api"]["port"]


def test_kv_transfer_config_is_the_plans(server: Server, parsed: argparse.Namespace) -> None:
    kv, planned, engine = parsed.kv_transfer_config, server.planned, server.script.engine
    assert kv.kv_role == engine["kv_role"]
    assert kv.kv_port == planned["kv_port"]
    given = json.loads(server.argv[server.argv.index("--kv-transfer-config") + 1])
    assert given.get("engine_id", kv.engine_id) == kv.engine_id
    if "engine_id" in given:
        assert kv.engine_id == planned["engine_id"]
    own = kv.kv_connector_extra_config["prefill" if kv.kv_role == "kv_producer" else "decode"]
    assert own["tp_size"] == parsed.tensor_parallel_size
    assert own["dp_size"] == parsed.data_parallel_size


def test_engine_arguments_are_made(server: Server, parsed: argparse.Namespace) -> None:
    """Every word of the plan arrives in AsyncEngineArgs."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = AsyncEngineArgs.from_cli_args(parsed)
    parallel = server.script.parallel
    assert arguments.tensor_parallel_size == parallel["tensor"]
    assert arguments.data_parallel_size == parallel["data"]
    assert arguments.prefill_context_parallel_size == parallel["prefill_context"]
    assert arguments.decode_context_parallel_size == parallel["decode_context"]
    assert arguments.kv_transfer_config.kv_port == server.planned["kv_port"]
    for words in ("max-model-len", "max-num-seqs", "max-num-batched-tokens"):
        if f"--{words}" in server.argv:
            value = server.argv[server.argv.index(f"--{words}") + 1]
            assert getattr(arguments, words.replace("-", "_")) == int(value)


def test_simulated_parser_takes_the_same(
    server: Server, parsed: argparse.Namespace, simulated_parser: Any
) -> None:
    args = vars(simulated_parser.parse_args(server.argv[1:]))
    assert args["kv_transfer_config"]["kv_port"] == server.planned["kv_port"]
    for name, value in vars(parsed).items():
        if name not in ("subparser", "model") and isinstance(value, str | int | float | None):
            assert args[name] == value or isinstance(args[name], dict), name
