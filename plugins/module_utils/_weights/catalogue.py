# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The table of what a look at the weights can find: why it matters, what is expected, its cure.

docs/checks.md is made from it. In a cure, `{path}` stands for the file or directory concerned, and
`{directory}` for the model's directory.
"""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

GUIDE = "vllm-ascend v0.13.0: docs/source/tutorials/long_sequence_context_parallel_multi_node.md"
SAFETENSORS = "safetensors format: 8 bytes of length, the header, the tensors, and nothing else"
QUANTIZATION = "vllm-ascend v0.13.0: vllm_ascend/quantization/quant_config.py, get_config_filenames"
LOADER = "vLLM 0.13.0: vllm/model_executor/model_loader/weight_utils.py"
AGAIN = "modelscope download --model ID --local_dir {directory}  # or pd_weights_source, and deploy.yml"


def _error(code: str, title: str, why: str, expected: str, cure: str = AGAIN, source: str = GUIDE) -> Check:
    return Check(code, title, why, ERROR, expected, cure, source)


WEIGHTS_CHECKS = Catalogue(
    _error(
        "weights-path-missing",
        "The directory of the weights is not there",
        "The engine takes the path for the name of a model on a hub, which does not know it.",
        "the model's directory, on every server that runs an engine",
        "ls -ld {path}  # mount the share, correct pd_model_path, or set pd_weights_source",
    ),
    _error(
        "weights-unreadable",
        "The directory of the weights cannot be listed",
        "The engine, which runs as root, sees what this check sees: nothing.",
        "a directory that root on this server can read",
        "ls -la {path}; findmnt -T {path}  # root squashing on NFS hides it from root",
    ),
    _error(
        "weights-absent",
        "There are no weights in the directory",
        "The engine stops: `Cannot find any model weights`.",
        "the model's weights in safetensors format",
    ),
    _error(
        "weights-incomplete-download",
        "A download is not complete",
        "Shards are missing or short, and the engine stops minutes into the loading.",
        "no unfinished downloads",
    ),
    _error(
        "weights-download-lock",
        "A download holds its lock",
        "Files still grow, or a killed download has left the lock behind.",
        "no lock of a running download",
        "fuser -v {path}/*.lock  # wait for the download; if none runs on any server, remove the lock",
    ),
    _error(
        "weights-index-missing",
        "Numbered shards without their index",
        "Without the index all files are loaded, those of another model too.",
        "the index beside its shards",
        source=LOADER,
    ),
    _error(
        "weights-index-invalid",
        "An index that cannot be used",
        "The engine stops with an error of JSON, or loads what it does not name.",
        "a JSON object whose weight_map names a shard for each tensor",
        source=LOADER,
    ),
    _error(
        "weights-index-mismatch",
        "Index and shards are of two models",
        "Tensors are not initialized: the engine stops at the end of the loading, or answers nonsense.",
        "index and shards of one and the same model",
        source=LOADER,
    ),
    _error(
        "weights-shard-missing",
        "A shard that an index names is missing",
        "`FileNotFoundError`, or weights that are not initialized, minutes into the loading.",
        "all shards that the index names",
    ),
    _error(
        "weights-shard-truncated",
        "A shard ends early",
        "`SafetensorError: MetadataIncompleteBuffer`, minutes into the loading.",
        "files as long as their headers say",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-oversized",
        "A shard is longer than its header says",
        "`SafetensorError: MetadataIncompleteBuffer`, minutes into the loading.",
        "files as long as their headers say",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-corrupt",
        "A shard has no readable header",
        "`SafetensorError`, minutes into the loading.",
        "safetensors files",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-unreadable",
        "A shard cannot be read",
        "`FileNotFoundError` or `PermissionError`, minutes into the loading.",
        "files that root on this server can read",
        "ls -lL {path}; findmnt -T {path}  # mount what links point to; root squashing hides files from root",
    ),
    _error(
        "weights-shard-lfs-pointer",
        "A shard is a Git LFS pointer",
        "The clone was made without Git LFS: the files hold a few bytes in the place of the weights.",
        "the weights themselves",
        "git -C {path} lfs pull",
    ),
    _error(
        "weights-hash-mismatch",
        "A file has another content than published",
        "Sizes and headers are right and a bit is not: answers are wrong, and nothing says so.",
        "the SHA-256 that the list beside the weights, or the manifest, names",
        source="sha256sum: the publisher's list",
    ),
    _error(
        "weights-config-missing",
        "There is no config.json",
        "The engine does not know what model this is, and stops.",
        "the model's configuration as a JSON object",
    ),
    _error(
        "weights-config-invalid",
        "config.json cannot be used",
        "`JSONDecodeError`, at the start of the engine.",
        "the model's configuration as a JSON object",
    ),
    _error(
        "weights-dtype-absent",
        "config.json names no dtype",
        "The engine takes float16 or float32, which this model is not made for.",
        "torch_dtype or dtype, with the value of model_weights_dtype",
        "grep dtype {path}  # add the line, or give the engines --dtype",
    ),
    _error(
        "weights-dtype-unexpected",
        "config.json names another dtype than expected",
        "The guide has it changed by hand on every server; another one costs memory or lacks operators.",
        "the value of model_weights_dtype, or one of model_weights_dtype_replaceable",
        "grep dtype {path}  # are these the weights meant? then model_weights_dtype",
    ),
    _error(
        "weights-dtype-not-patched",
        "config.json cannot be changed",
        "The dtype is not the one that is wanted, and the file, or its file system, is read-only.",
        "a directory that root on this server can write",
        "findmnt -T {path}  # run the role on the server that owns the share",
    ),
    _error(
        "weights-tokenizer-missing",
        "Files of the tokenizer are missing",
        "Without a vocabulary the engine stops; without tokenizer_config.json (a warning) it has no chat "
        "template.",
        "a vocabulary (tokenizer.json, tokenizer.model, vocab.json with merges.txt, tekken.json or "
        "*.tiktoken), and tokenizer_config.json",
    ),
    _error(
        "weights-tokenizer-invalid",
        "A file of the tokenizer is no JSON",
        "The engine stops at its start.",
        "JSON objects",
    ),
    _error(
        "weights-quant-description-missing",
        "The description of the quantization is missing",
        "`--quantization ascend` reads which tensor is quantized how, and stops without it.",
        "quant_model_description.json, or quantization_config in config.json",
        source=QUANTIZATION,
    ),
    _error(
        "weights-quant-description-invalid",
        "The description of the quantization cannot be used",
        "`--quantization ascend` stops: no JSON, or more than one such file.",
        "one JSON object",
        source=QUANTIZATION,
    ),
)
