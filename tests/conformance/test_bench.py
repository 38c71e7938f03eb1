"""`vllm bench serve`: the committed data file is the real parser's; both take and refuse the same words."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import ENGINE, ROOT, VERSION, source

PLAN = {
    "model": {"path": "/m", "served_name": "deepseek_v3"},
    "hosts": {
        "p": {"engines": [{"instance": "p", "role": "prefiller", "argv": ["--max-model-len", "136000"]}]}
    },
}


def by_path(name: str, path: Path) -> ModuleType:
    """A module that is in no package of this environment."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def ours() -> list[str]:
    """What role benchmark runs, but for `vllm bench serve`."""
    runs = by_path("benchmark_runs", ROOT / "plugins" / "plugin_utils" / "_benchmark" / "runs.py")
    (run,) = runs.make_runs(PLAN, runs.Case(), [1], 1, "/r", "http://10.0.0.11:8005")
    assert run.argv[:3] == ("vllm", "bench", "serve")
    return list(run.argv[3:])


ACCEPTED = {
    "only a model": ["--model", "/m"],
    "what role benchmark runs": ours(),
    "the guide's abbreviations": [
        *("--model", "/m", "--dataset-name", "random", "--random-input", "131072", "--num-prompt", "20"),
        *("--request-rate", "0", "--save-result", "--result-dir", "./"),
    ],
    "underscores": ["--model", "/m", "--num_prompts", "3", "--random_input_len=9"],
    "metadata": ["--model", "/m", "--metadata", "a=1", "b=2"],
    "extra body": ["--model", "/m", "--extra-body", '{"top_k": 1}'],
    "greedy": ["--model", "/m", "--temperature", "0"],
}
LATER = {
    "no model": ("0.18.0", ["--num-prompts", "2"]),
    "lengths for any data": ("0.18.0", ["--model", "/m", "--input-len", "9", "--output-len", "3"]),
    "a ratio as text": ("0.23.0", ["--model", "/m", "--random-range-ratio", "{}"]),
    "a switch that is off": ("0.23.0", ["--model", "/m", "--no-self-timed"]),
    "random data from a file": ("0.23.0", ["--model", "/m", "--dataset-path", "/d"]),
}
"""Accepted from a release on, and refused before."""
REFUSED = {
    "an unknown option": ["--model", "/m", "--no-such-option"],
    "a word for a number": ["--model", "/m", "--num-prompts", "many"],
    "an unknown backend": ["--model", "/m", "--backend", "tgi2"],
    "an unknown data set": ["--model", "/m", "--dataset-name", "aime"],
    "an ambiguous abbreviation": ["--model", "/m", "--random-mm", "1"],
    "an option of vllm serve": ["--model", "/m", "--tensor-parallel-size", "2"],
}
HERE = tuple(map(int, VERSION.split(".")))
for _title, (_since, _words) in LATER.items():
    (ACCEPTED if tuple(map(int, _since.split("."))) <= HERE else REFUSED)[_title] = _words


@pytest.fixture(scope="module")
def bench_generator() -> ModuleType:
    return by_path("gen_bench_args", ROOT / "scripts" / "gen_bench_args.py")


@pytest.fixture(scope="module")
def real_bench(bench_generator: ModuleType) -> Any:
    return bench_generator.load_parser(source())


def test_the_proxy_is_asked_greedily_whatever_the_release(simulated_parser: Any) -> None:
    assert simulated_parser.parse_args(["bench", "serve", *ours()]).temperature == 0.0


def test_data_file_is_the_real_parsers(bench_generator: ModuleType) -> None:
    committed = json.loads((ENGINE / "data" / f"vllm_bench_serve_{VERSION}.json").read_text(encoding="utf-8"))
    assert bench_generator.describe(source()) == committed


@pytest.mark.parametrize("words", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_both_accept(words: list[str], real_bench: Any, simulated_parser: Any) -> None:
    left = vars(real_bench.parse_args(["bench", "serve", *words]))
    right = vars(simulated_parser.parse_args(["bench", "serve", *words]))
    for name, value in left.items():
        if name in ("dispatch_function", "request_id_prefix", "random_mm_bucket_config"):
            continue
        assert right[name] == value, name


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED.keys())
def test_both_refuse_with_the_same_words(
    words: list[str], real_bench: Any, simulated_parser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for parser in (real_bench, simulated_parser):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(["bench", "serve", *words])
        assert end.value.code == 2
        said.append(capsys.readouterr().err.strip().splitlines()[-1].split("error: ", 1)[1])
    assert said[0] == said[1]
