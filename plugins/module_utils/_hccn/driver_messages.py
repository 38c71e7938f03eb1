# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the driver's tools say when they fail, so that people see why. Pure functions over text.

npu-smi prints `DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)` first, which says nothing, and the reason
in its second line: `dcmi module initialize failed. ret is -8005` (vllm-ascend issues 632 and 2698).
"""

from __future__ import annotations

import re

# The codes of dcmi_interface_api.h (DCMI_ERR_CODE_…), which npu-smi passes on, in words.
DCMI_CODES = {
    -8001: "an invalid parameter",
    -8002: "the operation is not permitted: it needs root",
    -8003: "a memory operation failed",
    -8005: "the driver is not up, or may not be asked: no root and not in the driver's group, or the chip is "
    "held by a container",
    -8006: "the driver did not answer in time",
    -8007: "no such device number",
    -8008: "the device does not exist",
    -8009: "a call of the driver failed: dmesg says more",
    -8012: "the device is not ready, it is still starting",
    -8013: "not supported in a container",
    -8015: "the reset failed",
    -8017: "firmware or driver is being upgraded",
    -8020: "the device is used: another container or process holds it",
    -8255: "not supported by this device or driver",
}
# The whole answer of a tool that fails is some lines; more is no explanation.
SHOWN = 600
# It is said of every failure, by the library under the tool.
_NOISE = re.compile(r"DrvMngGetConsoleLogLevel", re.IGNORECASE)
_CODE = re.compile(
    r"(?:\bret(?:urn)?(?: code| value)?(?: is|[ \t]*[:=])?|\berror code(?: is|[ \t]*[:=])?)[ \t]*(-8\d{3})\b",
    re.I,
)


def shown(text: str, width: int = SHOWN) -> str:
    """All that a tool said, in one line, with the meaning of its codes. What says nothing comes last."""
    lines = [line.strip() for line in text.replace("\x00", "").splitlines() if line.strip()]
    lines.sort(key=lambda line: _NOISE.search(line) is not None)
    said = "; ".join(lines)
    if len(said) > width:
        said = said[: width - 1] + "…"
    found = meanings(text)
    return f"{said} ({found})" if found else said


def meanings(text: str) -> str:
    """The codes of DCMI in a text, and what they mean."""
    codes = dict.fromkeys(int(code) for code in _CODE.findall(text))
    return "; ".join(f"{code}: {DCMI_CODES[code]}" for code in codes if code in DCMI_CODES)
