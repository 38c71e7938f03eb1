# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The inspection of a model directory, on small models of the real shape."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._weights import inspection, patch

CONFIG = b"""{
  "architectures": ["DeepseekV3ForCausalLM"],
\t"torch_dtype" : "float16",\r
  "rope_scaling": {"torch_dtype": "float16", "type": "yarn"},
  "eos_token": "<\xef\xbd\x9cend\xef\xbd\x9c>", "rms_norm_eps": 1.0e-06
}"""
SHARDS = 4


def safetensors(tensors: dict[str, int]) -> bytes:
    """A safetensors file with tensors of so many bytes each."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "I8", "shape": [size], "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


def add_shards(directory: Path, stem: str, count: int = SHARDS) -> None:
    weight_map = {}
    for number in range(1, count + 1):
        shard = f"{stem}-{number:05}-of-{count:05}.safetensors"
        tensors = {f"{stem}.layers.{number}.{part}": 8 * number for part in ("weight", "scale")}
        (directory / shard).write_bytes(safetensors(tensors))
        weight_map.update(dict.fromkeys(tensors, shard))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A quantized model with two indexes."""
    directory = tmp_path / "model"
    directory.mkdir()
    add_shards(directory, "model")
    add_shards(directory, "quant_model_weight_w8a8_dynamic")
    (directory / "config.json").write_bytes(CONFIG)
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 131072}')
    (directory / "quant_model_description.json").write_text('{"model.layers.1.weight": "W8A8_DYNAMIC"}')
    return directory


def look(model: Path, **options) -> inspection.Report:
    return inspection.inspect(str(model), **{"dtype": "bfloat16", **options})


def codes(report: inspection.Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_whole_model_has_no_findings(model: Path) -> None:
    report = look(model)
    assert report.findings == []
    assert report.indexes == [
        "model.safetensors.index.json",
        "quant_model_weight_w8a8_dynamic.safetensors.index.json",
    ]
    assert report.shards == 2 * SHARDS
    assert report.size == sum(path.stat().st_size for path in model.glob("*.safetensors"))


def test_a_small_model_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors({"weight": 16}))
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    report = look(tmp_path)
    assert report.findings == []
    assert report.patch is None


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


SHARD = "model-00002-of-00004.safetensors"
INDEX = "model.safetensors.index.json"
BREAKAGES = {
    "shard missing": (lambda m: (m / SHARD).unlink(), "weights-shard-missing"),
    "shard of the quantized index missing": (
        lambda m: (m / "quant_model_weight_w8a8_dynamic-00001-of-00004.safetensors").unlink(),
        "weights-shard-missing",
    ),
    "shard a broken link": (
        lambda m: ((m / SHARD).unlink(), (m / SHARD).symlink_to("nowhere")),
        "weights-shard-unreadable",
    ),
    "shard a byte short": (lambda m: truncate(m / SHARD), "weights-shard-truncated"),
    "shard empty": (lambda m: (m / SHARD).write_bytes(b""), "weights-shard-truncated"),
    "shard ends in its header": (lambda m: os.truncate(m / SHARD, 20), "weights-shard-truncated"),
    "shard a byte too long": (
        lambda m: (m / SHARD).write_bytes((m / SHARD).read_bytes() + b"\0"),
        "weights-shard-oversized",
    ),
    "shard of zeros": (
        lambda m: (m / SHARD).write_bytes(bytes((m / SHARD).stat().st_size)),
        "weights-shard-corrupt",
    ),
    "shard with a header that is no JSON": (
        lambda m: (m / SHARD).write_bytes((4).to_bytes(8, "little") + b"}{}{"),
        "weights-shard-corrupt",
    ),
    "shard a header without offsets": (
        lambda m: (m / SHARD).write_bytes((9).to_bytes(8, "little") + b'{"a": {}}'),
        "weights-shard-corrupt",
    ),
    "shard an LFS pointer": (
        lambda m: (m / SHARD).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "weights-shard-lfs-pointer",
    ),
    "shard of another model": (
        lambda m: (m / SHARD).write_bytes(safetensors({"other": 8})),
        "weights-index-mismatch",
    ),
    "index missing": (lambda m: (m / INDEX).unlink(), "weights-index-missing"),
    "index cut off": (lambda m: truncate(m / INDEX), "weights-index-invalid"),
    "index without a map": (lambda m: rewrite(m / INDEX, dict.clear), "weights-index-invalid"),
    "index that leaves the directory": (
        lambda m: rewrite(m / INDEX, lambda index: index["weight_map"].update(x="../../etc/passwd")),
        "weights-index-invalid",
    ),
    "unfinished download": (lambda m: (m / "x.incomplete").touch(), "weights-incomplete-download"),
    "unfinished download in the hub's cache": (
        lambda m: ((m / ".cache/download").mkdir(parents=True), (m / ".cache/download/a.incomplete").touch()),
        "weights-incomplete-download",
    ),
    "unfinished ModelScope download": (
        lambda m: ((m / "._____temp").mkdir(), (m / "._____temp" / SHARD).touch()),
        "weights-incomplete-download",
    ),
    "lock": (lambda m: (m / f"{SHARD}.lock").touch(), "weights-download-lock"),
    "config missing": (lambda m: (m / "config.json").unlink(), "weights-config-missing"),
    "config empty": (lambda m: (m / "config.json").write_text(" \n"), "weights-config-invalid"),
    "config cut off": (lambda m: truncate(m / "config.json"), "weights-config-invalid"),
    "config a list": (lambda m: (m / "config.json").write_text("[]"), "weights-config-invalid"),
    "config not UTF-8": (
        lambda m: (m / "config.json").write_bytes(b'{"a": "\xff"}'),
        "weights-config-invalid",
    ),
    "config without a dtype": (lambda m: (m / "config.json").write_text("{}"), "weights-dtype-absent"),
    "another dtype": (
        lambda m: (m / "config.json").write_text('{"torch_dtype": "float32"}'),
        "weights-dtype-unexpected",
    ),
    "no dtype at all": (
        lambda m: (m / "config.json").write_text('{"dtype": null}'),
        "weights-dtype-unexpected",
    ),
    "tokenizer missing": (lambda m: (m / "tokenizer.json").unlink(), "weights-tokenizer-missing"),
    "tokenizer configuration missing": (
        lambda m: (m / "tokenizer_config.json").unlink(),
        "weights-tokenizer-missing",
    ),
    "tokenizer cut off": (lambda m: truncate(m / "tokenizer.json"), "weights-tokenizer-invalid"),
    "description missing": (
        lambda m: (m / "quant_model_description.json").unlink(),
        "weights-quant-description-missing",
    ),
    "description under another name": (
        lambda m: (m / "quant_model_description.json").rename(m / "quant_model_description_w8a8.json"),
        "weights-quant-description-missing",
    ),
    "two descriptions": (
        lambda m: (m / "old_quant_model_description.json").write_text('{"a": "W8A8"}'),
        "weights-quant-description-invalid",
    ),
    "description empty": (
        lambda m: (m / "quant_model_description.json").write_text("{}"),
        "weights-quant-description-invalid",
    ),
}


@pytest.mark.parametrize(("breakage", "code"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_each_breakage_gives_exactly_its_finding(model: Path, breakage: Callable, code: str) -> None:
    breakage(model)
    report = look(model)
    assert codes(report) == [code]
    finding = report.findings[0]
    assert finding.cure and finding.seen and finding.expected and finding.path.startswith(str(model))


def test_everything_is_found_at_once(model: Path) -> None:
    (model / SHARD).unlink()
    truncate(model / "model-00001-of-00004.safetensors")
    (model / "config.json").unlink()
    (model / "x.lock").touch()
    assert codes(look(model)) == [
        "weights-download-lock",
        "weights-shard-missing",
        "weights-shard-truncated",
        "weights-config-missing",
    ]


def test_many_missing_shards_are_one_finding(tmp_path: Path) -> None:
    add_shards(tmp_path, "model", 163)
    for path in sorted(tmp_path.glob("*.safetensors"))[10:]:
        path.unlink()
    finding = look(tmp_path).findings[0]
    assert finding.code == "weights-shard-missing"
    assert finding.seen.startswith("153 of 163 shards missing: model-00011-of-00163.safetensors, ")
    assert finding.seen.endswith(" and 150 more")
    assert len(finding.files) == 153


@pytest.mark.parametrize("kind", ["absent", "file", "empty"])
def test_no_weights_at_the_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model"
    if kind == "file":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    found = codes(look(path))
    assert found[0] == ("weights-absent" if kind == "empty" else "weights-path-missing")
    assert kind == "empty" or len(found) == 1


def test_the_hubs_own_locks_are_no_finding(model: Path) -> None:
    folder = model / ".cache/huggingface/download"
    folder.mkdir(parents=True)
    (folder / f"{SHARD}.lock").touch()
    (folder / f"{SHARD}.metadata").touch()
    assert look(model).findings == []


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [("auto", []), ("none", []), ("ascend", ["weights-quant-description-missing"])],
)
def test_a_description_is_only_asked_of_quantized_models(
    tmp_path: Path, quantization: str, expected: list[str]
) -> None:
    add_shards(tmp_path, "model")
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert codes(look(tmp_path, quantization=quantization)) == expected


def test_a_description_in_the_configuration_is_enough(model: Path) -> None:
    (model / "quant_model_description.json").unlink()
    config = {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "ascend"}}
    (model / "config.json").write_text(json.dumps(config))
    assert look(model).findings == []


def test_the_cure_of_a_misnamed_description_is_a_command(model: Path) -> None:
    wanted, other = (
        model / "quant_model_description.json",
        model / "quant_model_description_w8a8_dynamic.json",
    )
    wanted.rename(other)
    assert look(model).findings[0].cure == f"cp {other} {wanted}"


def test_the_patch_changes_one_value_and_nothing_else(model: Path) -> None:
    path = model / "config.json"
    path.chmod(0o640)
    report = look(model)
    kept = patch.apply_patch(model, report.patch)
    changed = path.read_bytes()
    assert changed == CONFIG.replace(b'"torch_dtype" : "float16"', b'"torch_dtype" : "bfloat16"')
    assert b'{"torch_dtype": "float16", "type": "yarn"}' in changed
    assert kept.name == "config.json.orig"
    assert kept.read_bytes() == CONFIG
    assert path.stat().st_mode & 0o777 == 0o640
    again = look(model)
    assert again.patch is None
    assert again.dtype == "bfloat16"
    assert list(model.glob(".*")) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"dtype":"float16"}', '{"dtype":"bfloat16"}'),
        ('{"dtype": "bfloat16"}', None),
        (
            '{"torch_dtype": "float16", "dtype": "float16"}',
            '{"torch_dtype": "bfloat16", "dtype": "bfloat16"}',
        ),
        ('{"a": "\\"torch_dtype\\": \\"float16\\"", "dtype": "float16"}', None),
        ('{"text_config": {"torch_dtype": "float16"}}', '{"text_config": {"torch_dtype": "bfloat16"}}'),
        ('{"torch_dtype": "bfloat16", "text_config": {"torch_dtype": "float16"}}', None),
        ('\n\n{ "a": [1, {"b": 2}] ,\n"dtype"\n:\n"float16"\n}\n', None),
    ],
    ids=["new name", "done", "both names", "in a string", "nested", "only the outer counts", "white space"],
)
def test_where_the_dtype_stands(tmp_path: Path, before: str, after: str | None) -> None:
    (tmp_path / "config.json").write_text(before, newline="")
    change = look(tmp_path).patch
    if after is None and json.loads(before).get("dtype") == "float16":
        after = before.replace('"float16"', '"bfloat16"')
    assert (change.after.decode() if change else None) == after


def test_dtype_may_be_left_alone(model: Path) -> None:
    report = look(model, dtype=None)
    assert report.findings == []
    assert report.patch is None
    assert report.dtype == "float16"


def test_a_forbidden_patch_is_a_finding(model: Path) -> None:
    report = inspection.without_patch(look(model), "bfloat16")
    assert codes(report) == ["weights-dtype-unexpected"]
    assert report.patch is None


def test_an_older_original_is_never_overwritten(model: Path) -> None:
    (model / "config.json.orig").write_text("older")
    kept = patch.apply_patch(model, look(model).patch)
    assert kept.name == "config.json.orig.1"
    assert kept.read_bytes() == CONFIG
    assert (model / "config.json.orig").read_text() == "older"


def test_without_hard_links_the_original_is_kept_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    kept = patch.apply_patch(model, look(model).patch)
    assert kept.read_bytes() == CONFIG
    assert look(model).dtype == "bfloat16"
    assert list(model.glob(".*")) == []


def test_a_change_by_someone_else_is_not_overwritten(model: Path) -> None:
    change = look(model).patch
    (model / "config.json").write_text('{"torch_dtype": "float32"}')
    with pytest.raises(patch.ConfigChanged):
        patch.apply_patch(model, change)
    assert (model / "config.json").read_text() == '{"torch_dtype": "float32"}'


def test_servers_that_share_the_directory_may_patch_at_once(model: Path) -> None:
    reports = [look(model) for _ in range(8)]
    gate = threading.Barrier(len(reports))

    def server(report: inspection.Report) -> None:
        gate.wait()
        patch.apply_patch(model, report.patch)

    threads = [threading.Thread(target=server, args=(report,)) for report in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert look(model).dtype == "bfloat16"
    assert [path.name for path in model.glob("config.json*")].count("config.json.orig") == 1
    assert sorted(path.name for path in model.glob("*config.json*")) == [
        "config.json",
        "config.json.orig",
        "tokenizer_config.json",
    ]
    assert (model / "config.json.orig").read_bytes() == CONFIG


def test_the_fingerprint_is_equal_for_equal_models_only(model: Path) -> None:
    before = look(model).fingerprint
    patch.apply_patch(model, look(model).patch)
    assert look(model).fingerprint == before, "a patched and a yet unpatched copy are the same model"
    (model / "notes.md").touch()
    (model / ".msc").touch()
    assert look(model).fingerprint == before
    rewrite(model / "tokenizer.json", lambda tokenizer: tokenizer.update(version="1.1"))
    assert look(model).fingerprint != before
