# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Inspects a model directory without reading its tensors.

A safetensors file begins with eight bytes (little endian: the length of its header) and the header, a
JSON object with the position of every tensor. These few kilobytes determine the exact size of the file, so
a partially copied shard is found without reading hundreds of gigabytes. Nothing here imports Ansible.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._files.contents import files_below
from .._findings import Finding, errors_of
from . import hashes as model_hashes
from .catalogue import WEIGHTS_CHECKS
from .config_json import CONFIG_NAME, JsonError, dtype_spans, load_object, with_dtype
from .patch import ConfigPatch
from .safetensors import NUMBERED_SHARD, SHARD_SUFFIX, Shard, ShardError, read_shard

INDEX_SUFFIX = ".safetensors.index.json"

# vLLM-Ascend's quantization reads the file whose name ends like this.
QUANT_DESCRIPTION_NAME = "quant_model_description.json"

# Any one of these sets is a vocabulary that vLLM can load.
TOKENIZER_SETS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("tekken.json",),
    ("tiktoken.model",),
)

# Directories in which downloaders keep unfinished files.
DOWNLOAD_DIRECTORIES = ("._____temp",)

# Headers are read by several threads: on network storage each is a round trip.
READERS = 16

SHOWN_FILES = 3


@dataclass
class Report:
    """The result of inspecting a model directory."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    shards: int = 0
    size: int = 0
    dtype: str | None = None
    patch: ConfigPatch | None = None
    fingerprint: str = ""
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        return errors_of(self.findings)


def _names(files: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(files[:SHOWN_FILES])
    rest = len(files) - SHOWN_FILES
    return f"{shown} and {rest} more" if rest > 0 else shown


# How findings describe broken shards: one finding for each kind, however many files.
_SHARD_KINDS = {
    "weights-shard-truncated": "too short",
    "weights-shard-oversized": "longer than their headers allow",
    "weights-shard-corrupt": "without a readable safetensors header",
    "weights-shard-unreadable": "not readable",
    "weights-shard-lfs-pointer": "Git LFS pointers",
}


def finding(code: str, directory: Path, path: Path | str, seen: str, **more: Any) -> Finding:
    """Return a finding about a file of a model, or about its directory; ``more``: arguments of Check.at."""
    return WEIGHTS_CHECKS.finding(code, path=str(path), seen=seen, directory=directory, **more)


class Inspector:
    """Inspects one model directory and collects every finding."""

    def __init__(
        self, directory: Path, dtype: str | None, replaceable: tuple[str, ...], quantization: str
    ) -> None:
        self.directory = directory
        self.dtype = dtype
        self.replaceable = replaceable
        self.quantization = quantization
        self.report = Report(path=str(directory))
        self.files: list[str] = []
        self.shards: dict[str, Shard] = {}
        self.missing: set[str] = set()
        self.config: dict[str, Any] = {}
        self._hash = hashlib.sha256()

    def inspect(self) -> Report:
        if not self._list_files():
            return self.report
        self._leftovers()
        listed = self._indexes()
        self._shards(listed)
        self._config()
        self._tokenizer()
        self._quantization()
        self._fingerprint()
        return self.report

    def _add(self, code: str, path: Path | str, seen: str, **more: Any) -> None:
        self.report.findings.append(finding(code, self.directory, path, seen, **more))

    def _list_files(self) -> bool:
        try:
            for folder, _folders, names in os.walk(self.directory, onerror=_raise):
                inner = os.path.relpath(folder, self.directory)
                self.files += [name if inner == "." else f"{inner}/{name}" for name in names]
        except NotADirectoryError:
            self._add("weights-path-missing", self.directory, "a file")
            return False
        except FileNotFoundError:
            self._add("weights-path-missing", self.directory, "no such directory")
            return False
        except OSError as error:
            self._add(
                "weights-unreadable", error.filename or self.directory, f"cannot be listed: {error.strerror}"
            )
            return False
        self.files.sort()
        return True

    def _leftovers(self) -> None:
        # Locks below a hidden directory (`.cache/huggingface`, `.git`) outlive a good download.
        unfinished, locks = [], []
        for name in self.files:
            top = name.split("/", 1)[0]
            if name.endswith(".incomplete") or top in DOWNLOAD_DIRECTORIES:
                unfinished.append(name)
            elif name.endswith(".lock") and not (top != name and top.startswith(".")):
                locks.append(name)
        if unfinished:
            self._add(
                "weights-incomplete-download",
                self.directory,
                f"{len(unfinished)} unfinished: {_names(unfinished)}",
                files=tuple(unfinished),
            )
        if locks:
            self._add(
                "weights-download-lock",
                self.directory,
                f"{len(locks)} lock file(s): {_names(locks)}",
                files=tuple(locks),
            )

    def _top(self, suffix: str) -> list[str]:
        return [name for name in self.files if "/" not in name and name.endswith(suffix)]

    def _indexes(self) -> dict[str, set[str]]:
        """Read every index and return the tensors that each listed shard must contain."""
        listed: dict[str, set[str]] = {}
        for name in self._top(INDEX_SUFFIX):
            path = self.directory / name
            try:
                weight_map = load_object(path)[0].get("weight_map")
                if not isinstance(weight_map, dict) or not weight_map:
                    raise JsonError("no weight_map")
                strange = [shard for shard in weight_map.values() if not _plain(shard)]
                if strange:
                    raise JsonError(f"a weight_map that lists {strange[0]!r}")
            except JsonError as error:
                self._add("weights-index-invalid", path, str(error))
                continue
            self.report.indexes.append(name)
            shards = sorted(set(weight_map.values()))
            for tensor, shard in weight_map.items():
                listed.setdefault(shard, set()).add(tensor)
            missing = [shard for shard in shards if not os.path.lexists(self.directory / shard)]
            if missing:
                self.missing.update(missing)
                self._add(
                    "weights-shard-missing",
                    path,
                    f"{len(missing)} of {len(shards)} shards missing: {_names(missing)}",
                    expected=f"all {len(shards)} shards listed in the index",
                    files=tuple(missing),
                )
        return listed

    def _shards(self, listed: dict[str, set[str]]) -> None:
        present = self._top(SHARD_SUFFIX)
        if not present and not listed:
            self._add("weights-absent", self.directory, "no *.safetensors file and no index")
            return
        names = sorted({*present, *listed}.difference(self.missing))
        with ThreadPoolExecutor(max_workers=READERS) as readers:
            outcomes = list(readers.map(lambda name: read_shard(self.directory, name), names))
        broken: dict[str, list[ShardError]] = {}
        for outcome in outcomes:
            if isinstance(outcome, ShardError):
                broken.setdefault(outcome.code, []).append(outcome)
            else:
                self.shards[outcome.name] = outcome
        for code, errors in sorted(broken.items()):
            details = [f"{error.name} ({error.seen}, not {error.expected})" for error in errors]
            self._add(
                code,
                self.directory,
                f"{len(errors)} of {len(names)} shards {_SHARD_KINDS[code]}: {_names(details)}",
                files=[error.name for error in errors],
            )
        self.report.shards = len(names)
        self.report.size = sum(shard.size for shard in self.shards.values())
        self._numbered(present, listed)
        self._tensors(listed)

    def _numbered(self, present: list[str], listed: dict[str, set[str]]) -> None:
        """Report numbered shards that no index lists: their index is missing."""
        orphans = [name for name in present if name not in listed and NUMBERED_SHARD.match(name)]
        broken_index = any(finding.code == "weights-index-invalid" for finding in self.report.findings)
        if orphans and not broken_index:
            stems = sorted({match["stem"] for match in map(NUMBERED_SHARD.match, orphans) if match})
            self._add(
                "weights-index-missing",
                self.directory,
                f"{len(orphans)} numbered shards that no index lists: {_names(orphans)}",
                expected=", ".join(f"{stem}{INDEX_SUFFIX}" for stem in stems) + " next to its shards",
                files=tuple(orphans),
            )

    def _tensors(self, listed: dict[str, set[str]]) -> None:
        """Report shards that lack tensors listed for them in the index: they belong to another model."""
        wrong = [
            name
            for name, tensors in sorted(listed.items())
            if name in self.shards and tensors - self.shards[name].tensors
        ]
        if wrong:
            example = min(listed[wrong[0]] - self.shards[wrong[0]].tensors)
            self._add(
                "weights-index-mismatch",
                self.directory,
                f"{len(wrong)} shards lack tensors listed in the index, e.g. {example} in {wrong[0]}",
                files=tuple(wrong),
            )

    def _config(self) -> None:
        path = self.directory / CONFIG_NAME
        try:
            self.config, data = load_object(path)
        except JsonError as error:
            self._add(
                "weights-config-invalid" if path.exists() else "weights-config-missing", path, str(error)
            )
            return
        text = data.decode("utf-8")
        values = {key: json.loads(text[start:end]) for key, (start, end) in dtype_spans(text).items()}
        if values:
            self.report.dtype = str(next(iter(values.values())))
        if self.dtype is None:
            return
        if not values:
            self._add(
                "weights-dtype-absent",
                path,
                "neither torch_dtype nor dtype",
                expected=f'"torch_dtype": "{self.dtype}"',
                cure=f'grep dtype {path}  # add "torch_dtype": "{self.dtype}", or give the engines --dtype',
            )
            return
        others = {
            key: value
            for key, value in values.items()
            if value != self.dtype and value not in self.replaceable
        }
        if others:
            seen = ", ".join(f"{key} = {json.dumps(value)}" for key, value in others.items())
            self._add(
                "weights-dtype-unexpected",
                path,
                seen,
                expected=f'"{self.dtype}"',
                cure="grep dtype {path}  # if these are the intended weights, set model_weights_dtype",
            )
            return
        after = with_dtype(text, self.dtype, self.replaceable).encode("utf-8")
        if after != data:
            self.report.patch = ConfigPatch(before=data, after=after)

    def _tokenizer(self) -> None:
        names = set(self._top(""))
        if not any(names.issuperset(files) for files in TOKENIZER_SETS) and not self._top(".tiktoken"):
            self._add(
                "weights-tokenizer-missing",
                self.directory,
                "no vocabulary",
                expected="one of " + ", ".join(" + ".join(files) for files in TOKENIZER_SETS),
            )
        for name in ("tokenizer_config.json", "tokenizer.json"):
            path = self.directory / name
            if name not in names:
                if name == "tokenizer_config.json":
                    self._add("weights-tokenizer-missing", path, "no such file", severity="warning")
                continue
            try:
                load_object(path)
            except JsonError as error:
                self._add("weights-tokenizer-invalid", path, str(error))

    def _quantization(self) -> None:
        described = self._top(QUANT_DESCRIPTION_NAME)
        quantized = any(name.startswith("quant_model_") for name in self._top(""))
        wanted = self.quantization == "ascend" or (self.quantization == "auto" and quantized)
        if self.quantization == "none" or not (wanted or described):
            return
        # vLLM does not look further if config.json has it (weight_utils.py, get_quant_config).
        if not described and "quantization_config" in self.config:
            return
        if not described:
            path = self.directory / QUANT_DESCRIPTION_NAME
            others = [name for name in self._top(".json") if name.startswith("quant_model_description")]
            self._add(
                "weights-quant-description-missing",
                path,
                f"no such file, but {_names(others)}" if others else "no such file",
                cure=f"cp {self.directory / others[0]} {path}" if others else None,
            )
        elif len(described) > 1:
            self._add(
                "weights-quant-description-invalid",
                self.directory,
                f"{len(described)} files: {_names(described)}",
                expected=f"one file whose name ends in {QUANT_DESCRIPTION_NAME}: vLLM refuses to choose",
                files=tuple(described),
            )
        else:
            path = self.directory / described[0]
            try:
                if not load_object(path)[0]:
                    raise JsonError("an empty object")
            except JsonError as error:
                self._add("weights-quant-description-invalid", path, str(error))

    def _fingerprint(self) -> None:
        """Compute the fingerprint of the model from names, sizes, shard headers and small files."""
        for name in self.files:
            if not model_hashes.counts(name):
                continue
            path = self.directory / name
            if name in self.shards:
                seen = f"{self.shards[name].size} {self.shards[name].header_digest}"
            elif name == CONFIG_NAME and self.report.patch:
                seen = hashlib.sha256(self.report.patch.after).hexdigest()
            else:
                try:
                    seen = (
                        hashlib.sha256(path.read_bytes()).hexdigest()
                        if _small(path)
                        else str(path.stat().st_size)
                    )
                except OSError:
                    seen = "unreadable"
            self._hash.update(f"{name}\0{seen}\n".encode("utf-8", "surrogateescape"))
        self.report.fingerprint = self._hash.hexdigest()


# Only the size of larger files is part of the fingerprint.
SMALL_BYTES = 64 * 1024 * 1024


def _small(path: Path) -> bool:
    return path.suffix != SHARD_SUFFIX and path.stat().st_size <= SMALL_BYTES


def _plain(name: object) -> bool:
    """Return whether a shard's name in an index stays inside the model's directory."""
    return isinstance(name, str) and bool(name) and not name.startswith("/") and ".." not in name.split("/")


def _raise(error: OSError) -> None:
    raise error


def inspect(
    path: str, dtype: str | None, replaceable: tuple[str, ...] = ("float16",), quantization: str = "auto"
) -> Report:
    """Inspect a model directory without changing anything.

    ``path``: the directory; ``dtype``: the dtype that config.json must have (None: any); ``replaceable``: the
    dtypes that may be replaced by it; ``quantization``: ``auto``, ``ascend`` or ``none``, as for the module.
    """
    return Inspector(Path(path), dtype, replaceable, quantization).inspect()


def with_hashes(report: Report) -> Report:
    """Return the report with the hash of every file, compared with the lists of hashes in the directory.

    Reads every byte. The fingerprint is then computed from the hashes, with config.json as it will be.
    """
    directory = Path(report.path)
    names = files_below(directory)
    hashes = model_hashes.hash_all(directory, filter(model_hashes.counts, names))
    promised = model_hashes.manifest(directory, names)
    original = directory / f"{CONFIG_NAME}.orig"
    seen = {**hashes, CONFIG_NAME: model_hashes.sha256(original)} if original.exists() else hashes
    wrong = model_hashes.broken(promised, seen)
    if report.patch and CONFIG_NAME in hashes:
        hashes[CONFIG_NAME] = hashlib.sha256(report.patch.after).hexdigest()
    findings = list(report.findings)
    if wrong:
        what = f"the content of {len(wrong)} of {len(promised)} files differs: {_names(wrong)}"
        findings.append(finding("weights-hash-mismatch", directory, directory, what, files=wrong))
    return replace(report, findings=findings, hashes=hashes, fingerprint=model_hashes.combined(hashes))


def without_patch(report: Report, wanted: str) -> Report:
    """Return the report with a finding instead of a patch, for runs that must not patch the dtype."""
    if report.patch is None:
        return report
    directory = Path(report.path)
    unexpected = finding(
        "weights-dtype-unexpected",
        directory,
        directory / CONFIG_NAME,
        f'dtype = "{report.dtype}"',
        expected=f'"{wanted}"',
        cure="ansible-playbook playbooks/deploy.yml --tags plan,weights  # sets it and keeps the original",
    )
    return replace(report, findings=[*report.findings, unexpected], patch=None)


def not_patched(report: Report, wanted: str, error: Exception) -> Finding:
    """Return the finding about a config.json that should have been patched but could not be."""
    directory = Path(report.path)
    return finding(
        "weights-dtype-not-patched",
        directory,
        directory / CONFIG_NAME,
        f'dtype = "{report.dtype}", and the file cannot be replaced: {error}',
        expected=f'"{wanted}"',
    )
