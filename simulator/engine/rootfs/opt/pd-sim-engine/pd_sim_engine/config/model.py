"""ModelConfig: what the engine reads of the model's directory."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..log import StartupFailure
from ..paths import on_server
from .failure import ARG_UTILS, invalid

FRAME = (ARG_UTILS, 1332, "create_engine_config")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Model:
    """The model: its path as given, config.json, the dtype and the longest request it is served with."""

    path: str
    config: dict[str, Any]
    dtype: str
    max_model_len: int

    @property
    def directory(self) -> Path:
        return on_server(self.path)

    @property
    def is_mla(self) -> bool:
        return "kv_lora_rank" in self.config and self.config.get("kv_lora_rank") is not None

    @property
    def is_moe(self) -> bool:
        return any(self.config.get(key) for key in ("n_routed_experts", "num_experts", "num_local_experts"))

    @property
    def kv_heads(self) -> int:
        return int(self.config.get("num_key_value_heads", self.config.get("num_attention_heads", 1)))

    @property
    def architecture(self) -> str:
        names = self.config.get("architectures") or ["?"]
        return str(names[0])


def read_model(args: argparse.Namespace) -> Model:
    """The model of the command line. Raises StartupFailure for a directory that vLLM cannot serve."""
    path = args.model_tag or args.model
    directory = on_server(path) if path.startswith("/") else Path(path)
    config = _read_config(path, directory)
    if not any((directory / name).exists() for name in TOKENIZERS):
        message = (
            f"Can't load tokenizer for '{path}'. If you were trying to load it from the hub, "
            "make sure you don't have a local directory with the same name. Otherwise, make sure "
            f"'{path}' is the "
            "correct path to a directory containing all relevant files for a LlamaTokenizerFast tokenizer."
        )
        raise StartupFailure("OSError", message, frame=FRAME)
    if args.quantization == "ascend" and not list(directory.glob("quant_model_description*.json")):
        raise StartupFailure("ValueError", "Cannot find the config file for ascend", frame=FRAME)
    written = str(config.get("torch_dtype", config.get("dtype", "bfloat16"))).removeprefix("torch.")
    dtype = {"auto": written, "half": "float16", "float": "float32"}.get(args.dtype, args.dtype)
    return Model(path, config, dtype, _length(args, config))


def _read_config(path: str, directory: Path) -> dict[str, Any]:
    """The model's config.json."""
    try:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except OSError:
        message = (
            f"Invalid repository ID or local directory specified: '{path}'.\n"
            "Please verify the following requirements:\n"
            "1. Provide a valid Hugging Face repository ID.\n"
            "2. Specify a local directory that contains a recognized configuration file.\n"
            "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
            "   - For Mistral models: ensure the presence of a 'params.json'.\n"
        )
        raise invalid("ModelConfig", message, FRAME) from None
    except ValueError:
        message = f"It looks like the config file at '{path}/config.json' is not a valid JSON file."
        raise StartupFailure("OSError", message, frame=FRAME) from None
    return config


def _length(args: argparse.Namespace, config: dict[str, Any]) -> int:
    """--max-model-len, or the model's own."""
    longest = int(config.get("max_position_embeddings", 32768))
    length = int(args.max_model_len or longest)
    if length > longest and os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
        message = (
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
            f"(max_position_embeddings={longest} or model_max_length=None in model's config.json). To allow "
            "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
        raise invalid("ModelConfig", message, FRAME)
    return length


def check_attention(args: argparse.Namespace, model: Model) -> None:
    """Whether the model's heads can be split as asked for (verify_with_parallel_config)."""
    frame = ("/vllm-workspace/vllm/vllm/config/model.py", 1053, "verify_with_parallel_config")
    tp, dcp = args.tensor_parallel_size, args.decode_context_parallel_size
    heads = int(model.config.get("num_attention_heads", tp))
    if heads % tp:
        raise invalid(
            "VllmConfig",
            f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tp}).",
            frame,
        )
    if model.is_mla or dcp == 1:
        return
    kv_heads = model.kv_heads
    if tp <= kv_heads:
        message = (
            f"tensor parallel size {tp} must be greater than total num kv heads {kv_heads} when "
            "enable decode "
            "context parallel for GQA/MQA"
        )
    elif dcp > tp // kv_heads:
        message = (
            "decode context parallel size must less than or equal to (tensor parallel size "
            f"{tp} // total num kv heads {kv_heads}) = {tp // kv_heads}, but got {dcp}"
        )
    elif heads // kv_heads % dcp:
        message = (
            f"Total number of q per kv attn heads ({heads // kv_heads}) must be divisible by dcp "
            "world size when "
            f"enable decode context parallel for GQA ({dcp})."
        )
    else:
        return
    raise StartupFailure("AssertionError", message, frame=frame)
