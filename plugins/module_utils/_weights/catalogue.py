# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The catalogue of the checks of the weights: why each matters, what is expected, its cure.

docs/checks.md is generated from it. In a cure, ``{path}`` stands for the affected file or directory, and
``{directory}`` for the model's directory.
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
        "The weights directory does not exist",
        "The engine treats the path as the name of a model on a hub, where it is unknown.",
        "the model's directory, on every server that runs an engine",
        "ls -ld {path}  # mount the share, correct pd_model_path, or set pd_weights_source",
    ),
    _error(
        "weights-unreadable",
        "The weights directory cannot be listed",
        "The engine also runs as root, so it cannot read the directory either.",
        "a directory that root on this server can read",
        "ls -la {path}; findmnt -T {path}  # NFS root squashing denies access to root",
    ),
    _error(
        "weights-absent",
        "The directory contains no weights",
        "The engine stops: `Cannot find any model weights`.",
        "the model's weights in safetensors format",
    ),
    _error(
        "weights-incomplete-download",
        "A download is incomplete",
        "Shards are missing or truncated, and the engine stops minutes into loading.",
        "no unfinished downloads",
    ),
    _error(
        "weights-download-lock",
        "A download holds a lock",
        "Files are still being written, or a killed download has left the lock behind.",
        "no lock of a running download",
        "fuser -v {path}/*.lock  # wait for the download; if none runs on any server, remove the lock",
    ),
    _error(
        "weights-index-missing",
        "Numbered shards have no index",
        "Without the index all files are loaded, including those of another model.",
        "the index next to its shards",
        source=LOADER,
    ),
    _error(
        "weights-index-invalid",
        "An index is not valid",
        "The engine stops with a JSON error, or loads files that the index does not list.",
        "a JSON object whose weight_map names a shard for each tensor",
        source=LOADER,
    ),
    _error(
        "weights-index-mismatch",
        "The index and the shards belong to different models",
        "Tensors stay uninitialized: the engine stops at the end of loading, or gives nonsensical answers.",
        "an index and shards of the same model",
        source=LOADER,
    ),
    _error(
        "weights-shard-missing",
        "A shard listed in an index is missing",
        "`FileNotFoundError`, or uninitialized weights, minutes into loading.",
        "all shards listed in the index",
    ),
    _error(
        "weights-shard-truncated",
        "A shard is truncated",
        "`SafetensorError: MetadataIncompleteBuffer`, minutes into loading.",
        "files with the length given in their headers",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-oversized",
        "A shard is longer than its header says",
        "`SafetensorError: MetadataIncompleteBuffer`, minutes into loading.",
        "files with the length given in their headers",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-corrupt",
        "A shard has no readable header",
        "`SafetensorError`, minutes into loading.",
        "safetensors files",
        source=SAFETENSORS,
    ),
    _error(
        "weights-shard-unreadable",
        "A shard cannot be read",
        "`FileNotFoundError` or `PermissionError`, minutes into loading.",
        "files that root on this server can read",
        "ls -lL {path}; findmnt -T {path}  # mount what links point to; root squashing hides files from root",
    ),
    _error(
        "weights-shard-lfs-pointer",
        "A shard is a Git LFS pointer",
        "The clone was made without Git LFS: the files contain a few bytes instead of the weights.",
        "the weights themselves",
        "git -C {path} lfs pull",
    ),
    _error(
        "weights-hash-mismatch",
        "The content of a file differs from the published one",
        "Sizes and headers are right but bits differ: answers are wrong, and no error is reported.",
        "the SHA-256 from the list next to the weights, or from the manifest",
        source="sha256sum: the publisher's list",
    ),
    _error(
        "weights-config-missing",
        "config.json is missing",
        "The engine cannot determine the model and stops.",
        "the model's configuration as a JSON object",
    ),
    _error(
        "weights-config-invalid",
        "config.json is not valid",
        "`JSONDecodeError` when the engine starts.",
        "the model's configuration as a JSON object",
    ),
    _error(
        "weights-dtype-absent",
        "config.json sets no dtype",
        "The engine uses float16 or float32, for which this model is not made.",
        "torch_dtype or dtype, with the value of model_weights_dtype",
        "grep dtype {path}  # add the line, or give the engines --dtype",
    ),
    _error(
        "weights-dtype-unexpected",
        "config.json sets an unexpected dtype",
        "The guide changes it by hand on every server; another dtype needs more memory or lacks operators.",
        "the value of model_weights_dtype, or one of model_weights_dtype_replaceable",
        "grep dtype {path}  # if these are the intended weights, set model_weights_dtype",
    ),
    _error(
        "weights-dtype-not-patched",
        "config.json cannot be changed",
        "The dtype has to be changed, but the file or its file system is read-only.",
        "a directory that root on this server can write to",
        "findmnt -T {path}  # run the role on the server that owns the share",
    ),
    _error(
        "weights-tokenizer-missing",
        "Tokenizer files are missing",
        "Without a vocabulary the engine stops; without tokenizer_config.json (a warning) it has no chat "
        "template.",
        "a vocabulary (tokenizer.json, tokenizer.model, vocab.json with merges.txt, tekken.json or "
        "*.tiktoken), and tokenizer_config.json",
    ),
    _error(
        "weights-tokenizer-invalid",
        "A tokenizer file is not valid JSON",
        "The engine stops at startup.",
        "JSON objects",
    ),
    _error(
        "weights-quant-description-missing",
        "The quantization description is missing",
        "`--quantization ascend` reads from it how each tensor is quantized, and stops without it.",
        "quant_model_description.json, or quantization_config in config.json",
        source=QUANTIZATION,
    ),
    _error(
        "weights-quant-description-invalid",
        "The quantization description is not valid",
        "`--quantization ascend` stops: the file is not JSON, or there is more than one.",
        "one JSON object",
        source=QUANTIZATION,
    ),
)
