"""Weights of DeepSeek-V3.1 in W8A8 with MTP as they lie on a disk; every tensor is a few bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

SHARDS = 163
LAYERS = 61
# The first layers are dense, the others have experts; layer 61 (the 62nd) is the MTP layer.
DENSE_LAYERS = 3
EXPERTS_SHOWN = 4
INDEX = "quant_model_weight_w8a8_dynamic.safetensors.index.json"
# The one name that vLLM-Ascend looks for (0.13.0: vllm_ascend/quantization/quant_config.py).
DESCRIPTION = "quant_model_description.json"
TENSOR_BYTES = 16


def shard_name(number: int) -> str:
    """The file name of a shard, counted from 1."""
    return f"quant_model_weight_w8a8_dynamic-{number:05d}-of-{SHARDS:05d}.safetensors"


def tensors() -> Iterator[tuple[str, str]]:
    """Every tensor's name and how it is quantized, in the order of the model."""
    yield "model.embed_tokens.weight", "FLOAT"
    for layer in range(LAYERS + 1):
        here = f"model.layers.{layer}"
        if layer == LAYERS:
            for part in ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head"):
                yield f"{here}.{part}.weight", "FLOAT"
        for part in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"):
            yield from quantized(f"{here}.self_attn.{part}")
        for norm in (
            "self_attn.q_a_layernorm",
            "self_attn.kv_a_layernorm",
            "input_layernorm",
            "post_attention_layernorm",
        ):
            yield f"{here}.{norm}.weight", "FLOAT"
        if layer < DENSE_LAYERS:
            blocks = [f"{here}.mlp"]
        else:
            yield f"{here}.mlp.gate.weight", "FLOAT"
            yield f"{here}.mlp.gate.e_score_correction_bias", "FLOAT"
            blocks = [f"{here}.mlp.shared_experts"] + [
                f"{here}.mlp.experts.{n}" for n in range(EXPERTS_SHOWN)
            ]
        for block in blocks:
            for part in ("gate_proj", "up_proj", "down_proj"):
                yield from quantized(f"{block}.{part}")
    yield "model.norm.weight", "FLOAT"
    yield "lm_head.weight", "FLOAT"


def quantized(name: str) -> Iterator[tuple[str, str]]:
    """The three tensors of a linear layer with 8-bit weights."""
    for part in ("weight", "weight_scale", "weight_offset"):
        yield f"{name}.{part}", "W8A8_DYNAMIC"


def safetensors(names: list[str]) -> bytes:
    """A valid safetensors file with these tensors, all zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for position, name in enumerate(names):
        begin = position * TENSOR_BYTES
        header[name] = {"dtype": "I8", "shape": [TENSOR_BYTES], "data_offsets": [begin, begin + TENSOR_BYTES]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(TENSOR_BYTES * len(names))


def files() -> dict[str, bytes]:
    """Every file of the model's folder by name."""
    listed = list(tensors())
    weight_map = {
        name: shard_name(1 + position * SHARDS // len(listed)) for position, (name, _) in enumerate(listed)
    }
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, []).append(name)
    content = {shard: safetensors(names) for shard, names in shards.items()}
    index = {"metadata": {"total_size": TENSOR_BYTES * len(listed)}, "weight_map": weight_map}
    description = {"model_quant_type": "W8A8_DYNAMIC", **dict(listed)}
    texts = {
        INDEX: index,
        DESCRIPTION: description,
        "config.json": CONFIG,
        "generation_config.json": GENERATION_CONFIG,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.json": TOKENIZER,
    }
    return content | {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in texts.items()}


CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": DENSE_LAYERS,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "float16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": 0,
    "do_sample": True,
    "eos_token_id": 1,
    "temperature": 0.6,
    "top_p": 0.95,
}
TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<｜begin▁of▁sentence｜>",
    "eos_token": "<｜end▁of▁sentence｜>",
    "pad_token": "<｜end▁of▁sentence｜>",
    "model_max_length": 131072,
    "tokenizer_class": "LlamaTokenizerFast",
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [
        {"id": 0, "content": "<｜begin▁of▁sentence｜>", "special": True},
        {"id": 1, "content": "<｜end▁of▁sentence｜>", "special": True},
    ],
    "model": {
        "type": "BPE",
        "vocab": {"<｜begin▁of▁sentence｜>": 0, "<｜end▁of▁sentence｜>": 1, "a": 2},
        "merges": [],
    },
}
