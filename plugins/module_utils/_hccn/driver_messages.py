# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Explains the error messages of the driver's tools. Pure functions over text.

npu-smi prints ``DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)`` first, which is meaningless, and the
reason in its second line: ``dcmi module initialize failed. ret is -8005`` (vllm-ascend issues 632 and 2698).
"""

from __future__ import annotations

import re

# The meaning of the codes in dcmi_interface_api.h (DCMI_ERR_CODE_…), which npu-smi passes on.
DCMI_CODES = {
    -8001: "an invalid parameter",
    -8002: "the operation is not permitted: it needs root",
    -8003: "a memory operation failed",
    -8005: "the driver is not running or denies access: the user is neither root nor in the driver's group, "
    "or a container holds the chip",
    -8006: "the driver did not answer in time",
    -8007: "no such device number",
    -8008: "the device does not exist",
    -8009: "a driver call failed: see dmesg",
    -8012: "the device is not ready, it is still starting",
    -8013: "not supported in a container",
    -8015: "the reset failed",
    -8017: "firmware or driver is being upgraded",
    -8020: "the device is in use: another container or process holds it",
    -8255: "not supported by this device or driver",
}
# Characters of a failing tool's output that are shown; an explanation is a few lines long.
SHOWN = 600
# The library under the tools prints this for every failure.
_NOISE = re.compile(r"DrvMngGetConsoleLogLevel", re.IGNORECASE)
_CODE = re.compile(
    r"(?:\bret(?:urn)?(?: code| value)?(?: is|[ \t]*[:=])?|\berror code(?: is|[ \t]*[:=])?)[ \t]*(-8\d{3})\b",
    re.I,
)


def shown(text: str, width: int = SHOWN) -> str:
    """Return a tool's output as one line, with the meaning of its codes; meaningless lines come last.

    ``width``: the most characters of it that are kept.
    """
    lines = [line.strip() for line in text.replace("\x00", "").splitlines() if line.strip()]
    lines.sort(key=lambda line: _NOISE.search(line) is not None)
    said = "; ".join(lines)
    if len(said) > width:
        said = said[: width - 1] + "…"
    found = meanings(text)
    return f"{said} ({found})" if found else said


def meanings(text: str) -> str:
    """Return the DCMI codes in a text with their meaning; empty if there are none."""
    codes = dict.fromkeys(int(code) for code in _CODE.findall(text))
    return "; ".join(f"{code}: {DCMI_CODES[code]}" for code in codes if code in DCMI_CODES)
