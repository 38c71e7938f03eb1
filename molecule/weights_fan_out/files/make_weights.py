"""make_weights.py DIRECTORY SHARDS BYTES [SEED]: a model directory whose shards hold random bytes."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path


def main(directory: str, shards: int, size: int, seed: int) -> None:
    """Write index, shards, configuration and tokenizer."""
    folder, noise = Path(directory), random.Random(seed)
    folder.mkdir(parents=True)
    weight_map = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        tensor = f"layers.{number}.weight"
        header = json.dumps({tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        with (folder / name).open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header + noise.randbytes(size))
        weight_map[tensor] = name
    for name, value in {
        "model.safetensors.index.json": {"metadata": {"total_size": shards * size}, "weight_map": weight_map},
        "config.json": {"architectures": ["DeepseekV3ForCausalLM"], "torch_dtype": "float16"},
        "tokenizer.json": {"version": "1.0"},
        "tokenizer_config.json": {"model_max_length": 131072},
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int((sys.argv[4:] or ["1"])[0]))
