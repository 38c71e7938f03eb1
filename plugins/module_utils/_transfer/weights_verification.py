# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module model_weights: what is wrong with weights, and the dtype in their config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._files import safe_paths
from .._findings import counted, text_of
from .._weights import inspection, patch
from .._weights.config_json import CONFIG_NAME
from . import weights_process

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "dtype": {"type": "str", "default": "bfloat16"},
    "replaceable": {"type": "list", "elements": "str", "default": ["float16"]},
    "patch": {"type": "bool", "default": True},
    "quantization": {"type": "str", "choices": ["auto", "ascend", "none"], "default": "auto"},
    "hashes": {"type": "str", "choices": ["none", "full"], "default": "none"},
    "leftovers": {"type": "list", "elements": "path", "default": []},
    "fail_on_findings": {"type": "bool", "default": True},
}


def verify(options: dict[str, Any]) -> dict[str, Any]:
    """The module's result, with ``failed`` and ``msg`` where the weights cannot be served.

    options: the module's, and ``_check_mode``, in which config.json is not changed.
    """
    try:
        safe_paths.own_path(options["path"], "model_weights_path (pd_model_path)")
    except safe_paths.Refused as error:
        return {"leftover": False, **error.failure()}
    # As it is written: a transfer's files are named after it.
    path = options["path"]
    report = inspection.inspect(
        path,
        dtype=options["dtype"] or None,
        replaceable=tuple(options["replaceable"]),
        quantization=options["quantization"],
    )
    if not options["patch"]:
        report = inspection.without_patch(report, options["dtype"])
    if options["hashes"] == "full" and report.fingerprint:
        report = inspection.with_hashes(report)
    result = _patched(report, Path(path), options)
    left_files = [name for name in options["leftovers"] if Path(name).exists()]
    result.update(
        findings=[finding.to_dict() for finding in report.findings],
        warnings=[finding.sentence for finding in report.findings if finding.severity == "warning"],
        indexes=report.indexes,
        shards=report.shards,
        bytes=report.size,
        dtype=report.dtype,
        fingerprint=report.fingerprint,
        leftover=bool(left_files) or weights_process.left(path),
        leftover_files=left_files,
        **({"hashes": report.hashes} if options["hashes"] == "full" else {}),
    )
    if report.errors and options["fail_on_findings"]:
        # The screen shows all of a failure; hundreds of file names would hide the rest.
        for finding in result["findings"]:
            del finding["files"]
        head = f"The weights at {report.path} cannot be served: {counted(report.errors)}."
        result.update(failed=True, msg=text_of(report.errors, head))
    return result


def _patched(report: inspection.Report, directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Set the dtype in config.json if it must and can be set; return what that adds to the result."""
    if not report.patch or report.errors:
        return {"changed": False}
    name = str(directory / CONFIG_NAME)
    result: dict[str, Any] = {
        "changed": True,
        "diff": {
            "before_header": name,
            "after_header": name,
            "before": report.patch.before.decode("utf-8"),
            "after": report.patch.after.decode("utf-8"),
        },
    }
    if not options["_check_mode"]:
        try:
            result["original"] = str(patch.apply_patch(directory, report.patch))
        except (OSError, patch.ConfigChanged) as error:
            report.findings.append(inspection.not_patched(report, options["dtype"], error))
            return {"changed": False}
    report.dtype = options["dtype"]
    return result
