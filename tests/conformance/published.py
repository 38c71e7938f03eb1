"""What upstream itself publishes with a release: the commands of its tutorials and nightly tests, and the
variables around them, read from its source distribution."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from plugins.plugin_utils.rollout.launch.arguments import COMPUTED_FLAGS

from .planned import GroupShape, RawInventory, raw_inventory

# A block of code of a page, with the fence that it ends with.
BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,})[^\n]*\n(?P<code>.*?)^[ \t]*(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)
SERVE = re.compile(r"^[ \t]*(?:nohup[ \t]+)?vllm[ \t]+serve\b", re.MULTILINE)
# A value that only the shell of a script knows, alone or in JSON, as in '"$7"'.
UNKNOWN = re.compile(r'"?\$\{?\w+\}?"?')
# What the planner gives each engine itself: addresses, interfaces and chips.
OWN = frozenset(
    {
        "ASCEND_RT_VISIBLE_DEVICES",
        "GLOO_SOCKET_IFNAME",
        "HCCL_IF_IP",
        "HCCL_SOCKET_IFNAME",
        "TP_SOCKET_IFNAME",
        "VLLM_HOST_IP",
    }
)
CHIPS = 16


@dataclass(frozen=True)
class Serve:
    """One published command."""

    # The file, and the number of the command in it.
    page: str
    number: int
    env: Mapping[str, str]
    flags: Mapping[str, Any]

    @property
    def transfer(self) -> Mapping[str, Any]:
        value = self.flags.get("kv-transfer-config")
        return value if isinstance(value, dict) else {}

    @property
    def extra(self) -> Mapping[str, Any]:
        """kv_connector_extra_config; of several connectors all together."""
        told = dict(self.transfer.get("kv_connector_extra_config") or {})
        for inner in told.get("connectors", []):
            told.update(inner.get("kv_connector_extra_config") or {})
        return told

    def size(self, flag: str, told: str | None = None) -> int:
        """A parallel size: the flag's, or what both sides are told where a script's argument decides."""
        side = "prefill" if self.transfer.get("kv_role") == "kv_producer" else "decode"
        known = [self.flags.get(flag), self.extra.get(side, {}).get(told)]
        return next((int(value) for value in known if re.fullmatch("[0-9]+", str(value))), 1)

    def parallel(self) -> dict[str, int]:
        return {
            "tensor": self.size("tensor-parallel-size", "tp_size"),
            "prefill_context": self.size("prefill-context-parallel-size"),
            "decode_context": self.size("decode-context-parallel-size"),
            "pipeline": self.size("pipeline-parallel-size", "pp_size"),
            "data": self.size("data-parallel-size", "dp_size"),
        }

    def nodes(self) -> int:
        sizes = self.parallel()
        chips = sizes["tensor"] * sizes["prefill_context"] * sizes["pipeline"] * sizes["data"]
        return -(-chips // CHIPS)

    def variables(self) -> dict[str, Any]:
        """The command as variables of an instance."""
        result: dict[str, Any] = {
            "pd_parallel": self.parallel(),
            "pd_dp_mode": "external" if "data-parallel-rank" in self.flags else "internal",
            "pd_engine_env": {
                name: value for name, value in self.env.items() if name not in OWN and _known(name, value)
            },
            "pd_engine_args": {
                name: value
                for name, value in self.flags.items()
                if name not in COMPUTED_FLAGS and name != "host"
            },
            "pd_kv_connector": self.transfer["kv_connector"],
        }
        if str(self.transfer.get("kv_port")).isdecimal():
            result["pd_kv_port"] = int(self.transfer["kv_port"])
        extra = self.transfer.get("kv_connector_extra_config")
        if extra and "null" not in json.dumps(extra):
            result["pd_kv_extra_config"] = extra
        return result


@dataclass(frozen=True)
class Pair:
    """A prefiller and the decoder that the same page or test puts beside it."""

    prefiller: Serve
    decoder: Serve

    def __str__(self) -> str:
        return f"{self.prefiller.page}:{self.prefiller.number}-{self.decoder.number}"

    def inventory(self, release: str, profile: str = "generic") -> RawInventory:
        shapes: dict[str, GroupShape] = {}
        variables: dict[str, dict[str, Any]] = {}
        for role, serve in (("prefiller", self.prefiller), ("decoder", self.decoder)):
            names = tuple(f"{role[0]}{number}" for number in range(1, serve.nodes() + 1))
            shapes[role] = GroupShape(names, names, ())
            for name in names:
                variables[name] = {
                    "ansible_host": f"198.51.100.{len(variables) + 1}",
                    "pd_release": release,
                    "pd_image": f"registry.example/vllm-ascend:{release}-a3",
                    "pd_model_path": "/weights/model",
                    "pd_served_model_name": "model",
                    "pd_interface": "eth0",
                    "pd_profile": profile,
                    "pd_proxy_port": 1999,
                    **serve.variables(),
                }
        shapes["proxy"] = GroupShape(("p1",), ("p1",), ())
        return raw_inventory("published", shapes, variables)


def source() -> Path:
    """The unpacked source distribution of vllm-ascend."""
    return Path(os.environ["PD_CONFORMANCE_ASCEND"])


@cache
def serves() -> tuple[Serve, ...]:
    return (*_of_pages(), *_of_tests())


def pairs() -> Iterator[Pair]:
    """In the order of a page prefillers come first, and each of them is for each decoder that follows."""
    left: list[Serve] = []
    right: list[Serve] = []
    for serve in serves():
        if left and serve.page != left[0].page:
            left, right = [], []
        if serve.transfer.get("kv_role") == "kv_producer":
            left, right = ([], []) if right else (left, right)
            left.append(serve)
        elif serve.transfer.get("kv_role") == "kv_consumer":
            right.append(serve)
            yield from (Pair(other, serve) for other in left)


def variables() -> set[str]:
    """Every variable that a page or a test gives an engine, or a shell around it."""
    found = {name for _, code in _blocks() for name, _ in EXPORT.findall(code)}
    for path in sorted((source() / "tests" / "e2e" / "nightly").rglob("*.yaml")):
        found |= set(_environments(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return found


def _environments(value: Any) -> Iterator[str]:
    """The names under env_common and envs, wherever they stand."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("env_common", "envs") and isinstance(item, dict):
                yield from map(str, item)
            else:
                yield from _environments(item)
    elif isinstance(value, list):
        for item in value:
            yield from _environments(item)


def _blocks() -> Iterator[tuple[str, str]]:
    """Every block of code of the tutorials, with its page."""
    folder = source() / "docs" / "source" / "tutorials"
    for path in sorted(folder.rglob("*.md")):
        for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(folder)), block["code"]


def _of_pages() -> Iterator[Serve]:
    for number, (page, code) in enumerate(_blocks()):
        env = {name: _word(value) for name, value in EXPORT.findall(code)}
        for start in SERVE.finditer(code):
            yield Serve(page, number, env, _flags(shlex.split(_statement(code[start.end() :]))))


def _of_tests() -> Iterator[Serve]:
    """The commands of the nightly tests of several nodes: as one line, or as a list of words."""
    folder = source() / "tests" / "e2e" / "nightly" / "multi_node"
    for path in sorted(folder.rglob("*.yaml")):
        test = yaml.safe_load(path.read_text(encoding="utf-8"))
        common = test.get("env_common") or {}
        for number, node in enumerate([*(test.get("deployment") or []), *(test.get("templates") or [])]):
            words = node.get("server_cmd_template") or shlex.split(node.get("server_cmd", ""))
            env = {str(k): str(v) for k, v in {**common, **(node.get("envs") or {})}.items()}
            yield Serve(str(path.relative_to(folder)), number, env, _flags([str(word) for word in words]))


def _known(name: str, value: str) -> bool:
    """Whether a value does not hang on other variables of a script; on itself it may, as a path does."""
    return "$" not in re.sub(rf"\$\{{?{name}\b\}}?", "", value)


def _word(text: str) -> str:
    """The value of an assignment, as far as the shell takes it for one."""
    try:
        return next(iter(shlex.split(text, comments=True)), "")
    except ValueError:
        return text


def _statement(code: str) -> str:
    """The code up to the end of its first command, its lines joined."""
    quote, found = "", []
    lines = re.sub(r"\\[ \t]*\n", " ", code)
    for letter in lines:
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif not quote and letter in "\n#":
            break
        found.append(letter)
    return "".join(found)


def _flags(words: list[str]) -> dict[str, Any]:
    """The long flags of a command by name; a flag without a value is true, with several a list."""
    given: dict[str, list[str]] = {}
    name = None
    for word in words:
        if re.match(r"[0-9]?>|&$|\|$", word):
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("_", "-")
            given[name] = [value] if equals else []
        elif name is not None:
            given[name].append(word)
    return {
        name: True if not values else _value(values[0]) if len(values) == 1 else [_value(v) for v in values]
        for name, values in given.items()
    }


def _value(word: str) -> Any:
    if not word.startswith(("{", "[")):
        return word
    for text in (word, UNKNOWN.sub("null", word)):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return word
