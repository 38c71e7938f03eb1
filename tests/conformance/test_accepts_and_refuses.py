"""The real and the simulated parser take and refuse the same words."""

from __future__ import annotations

import json
from typing import Any

import pytest

GUIDE_KV = json.dumps(
    {
        "kv_connector": "MooncakeConnectorV1",
        "kv_role": "kv_producer",
        "kv_port": "30000",
        "engine_id": "0",
        "kv_connector_module_path": "vllm_ascend.distributed.mooncake_connector",
        "kv_connector_extra_config": {
            "prefill": {"dp_size": 1, "tp_size": 16},
            "decode": {"dp_size": 1, "tp_size": 16},
        },
    }
)

ACCEPTED = {
    "nothing": [],
    "a model": ["/m"],
    "underscores for dashes": ["/m", "--tensor_parallel_size", "16"],
    "underscores with equals": ["/m", "--served_model_name=a_b"],
    "short names": ["/m", "-tp", "16", "-pp", "1", "-dp", "2", "-dcp", "8", "-pcp", "2"],
    "a prefix of a name": ["/m", "--tensor-par", "4"],
    "a no-flag": ["/m", "--no-enable-prefix-caching", "--no-enable-chunked-prefill"],
    "a no-flag of a flag that is off": ["/m", "--no-enforce-eager"],
    "human readable": ["/m", "--max-model-len", "128k", "--max-num-batched-tokens", "1K"],
    "the guide's kv-transfer-config": ["/m", "--kv-transfer-config", GUIDE_KV],
    "dotted kv-transfer-config": [
        "/m",
        "--kv-transfer-config.kv_connector",
        "X",
        "--kv-transfer-config.kv_role=kv_both",
        "--kv-transfer-config.kv_port",
        "1",
    ],
    "compilation_config": ["/m", "--compilation_config", '{"cudagraph_mode": "FULL_DECODE_ONLY"}'],
    "compilation config in lower case": ["/m", "--compilation-config", '{"cudagraph_mode": "piecewise"}'],
    "capture sizes": ["/m", "--compilation-config", '{"cudagraph_capture_sizes": [1, 2, 4]}'],
    "optimization level": ["/m", "-O3"],
    "speculative config": ["/m", "--speculative-config", '{"num_speculative_tokens": 3}'],
    "additional config": ["/m", "--additional-config", '{"recompute_scheduler_enable": true}'],
    "any quantization": ["/m", "--quantization", "ascend"],
    "None for an optional number": ["/m", "--num-gpu-blocks-override", "None"],
    "several served names": ["/m", "--served-model-name", "a", "b"],
    "a repeated option": ["/m", "--port", "1", "--port", "2"],
    "a value that looks negative": ["/m", "--seed", "-1"],
    "--model instead of the positional": ["--model", "/m", "--port", "8004"],
    "headless with a master": ["/m", "--headless", "--master-addr", "a", "--nnodes", "2", "--node-rank", "1"],
    "a dot in a value": ["/m", "--gpu-memory-utilization=0.96", "--master-addr", "10.0.0.1"],
    "block size": ["/m", "--block-size", "128"],
    "a number as text in JSON": ["/m", "--kv-transfer-config", '{"kv_buffer_size": "1e9"}'],
}

REFUSED = {
    "an unknown option": ["/m", "--no-such-option"],
    "an unknown option with a value": ["/m", "--no-such-option", "1"],
    "two models": ["/m", "/n"],
    "an ambiguous prefix": ["/m", "--enable", "1"],
    "a word for a number": ["/m", "--port", "eight"],
    "a fraction for a number": ["/m", "--tensor-parallel-size", "1.5"],
    "a missing value": ["/m", "--port"],
    "a dtype that is none": ["/m", "--dtype", "bf16"],
    "a decimal with a binary suffix": ["/m", "--max-model-len", "1.5K"],
    "a value for a flag": ["/m", "--headless=1"],
    "a value for a no-flag": ["/m", "--no-enable-prefix-caching=true"],
    "broken JSON": ["/m", "--kv-transfer-config", "{"],
    "a list for a config": ["/m", "--kv-transfer-config", "[1]"],
    "a number for the engine id": ["/m", "--kv-transfer-config", '{"engine_id": 0}'],
    "a word for the kv port": ["/m", "--kv-transfer-config", '{"kv_port": "x"}'],
    "a role that is none": ["/m", "--kv-transfer-config", '{"kv_role": "producer"}'],
    "a connector without a role": ["/m", "--kv-transfer-config", '{"kv_connector": "X"}'],
    "an unknown key in compilation-config": ["/m", "--compilation-config", '{"no_such_key": 1}'],
    "broken speculative config": ["/m", "--speculative-config", "{"],
    "an empty number": ["/m", "--nnodes", ""],
}

# What the first release says one way and later ones the other.
CHANGED = {
    "an unknown key in kv-transfer-config": ["/m", "--kv-transfer-config", '{"no_such_key": 1}'],
    "a served name without a model": ["--served-model-name", "m"],
    "a number with a suffix in JSON": ["/m", "--kv-transfer-config", '{"kv_buffer_size": 80m}'],
    "automatic length": ["/m", "--max-model-len", "auto"],
    "a block size that is no power of two": ["/m", "--block-size", "127"],
}


def outcome(parser: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """("accepted", values) or ("refused", the last line but for its details)."""
    try:
        args = parser.parse_args(["serve", *words])
    except SystemExit as end:
        message = capsys.readouterr().err.strip()
        assert end.code == 2, message
        start = message.rindex("error: ")
        line = message[message.rindex("\n", 0, start) + 1 :].splitlines()[0]
        return "refused", line
    return "accepted", str(args.model_tag)


@pytest.mark.parametrize("words", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_both_accept(
    words: list[str], real_parser: Any, simulated_parser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    real = outcome(real_parser, words, capsys)
    assert real[0] == "accepted", real
    assert outcome(simulated_parser, words, capsys) == real
    left = vars(real_parser.parse_args(["serve", *words]))
    right = vars(simulated_parser.parse_args(["serve", *words]))
    for name, value in left.items():
        if name != "subparser" and isinstance(value, str | int | float | list | None):
            assert right[name] == value or isinstance(right[name], dict), name


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED.keys())
def test_both_refuse_with_the_same_words(
    words: list[str], real_parser: Any, simulated_parser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line of the error is the same; the real parser prints addresses of functions, which are left
    out."""
    real = outcome(real_parser, words, capsys)
    assert real[0] == "refused", real
    simulated = outcome(simulated_parser, words, capsys)

    def plain(line: str) -> str:
        return (
            line.split(" at 0x")[0].split("<function")[0].replace("vllm serve: ", "").split("error: ", 1)[1]
        )

    assert simulated[0] == "refused"
    assert plain(simulated[1]) == plain(real[1])


@pytest.mark.parametrize("words", CHANGED.values(), ids=CHANGED.keys())
def test_both_judge_alike(
    words: list[str], real_parser: Any, simulated_parser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for parser in (real_parser, simulated_parser):
        try:
            said.append(outcome(parser, words, capsys)[0])
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[1]


def test_an_unknown_cudagraph_mode_crashes_both(real_parser: Any, simulated_parser: Any) -> None:
    words = ["serve", "/m", "--compilation-config", '{"cudagraph_mode": "HALF"}']
    for parser in (real_parser, simulated_parser):
        with pytest.raises(KeyError, match="HALF"):
            parser.parse_args(words)
