# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a tool says when it fails, all of it, with its codes in words."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._commands import Answer
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import driver_messages as w
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import readings as verdict

LOG_LEVEL = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)"


@pytest.mark.parametrize(
    ("text", "begin", "meaning"),
    [
        (
            f"{LOG_LEVEL}\ndcmi module initialize failed. ret is -8005\n",
            "dcmi module",
            "the driver is not running",
        ),
        (
            f"{LOG_LEVEL}\r\ndcmi model initialized failed, because the device is used. ret is -8020\r\n",
            "dcmi model",
            "the device is in use: another container",
        ),
        ("npu get board type failed. ret is -8009\n", "npu get board type", "see dmesg"),
        ("dcmi module initialize failed. ret is -8999\n", "dcmi module", None),
        ("vnic ipaddr: 192.168.80.05\n", "vnic ipaddr", None),
    ],
)
def test_the_reason_comes_first_and_with_its_meaning(text: str, begin: str, meaning: str | None) -> None:
    said = w.shown(text)
    assert said.startswith(begin)
    assert (LOG_LEVEL in said) is (LOG_LEVEL in text)
    assert said.endswith(")") is (meaning is not None or LOG_LEVEL in text)
    assert (meaning or "") in said


def test_an_answer_of_one_line_is_that_line() -> None:
    assert w.shown("  Permission denied \n\n") == "Permission denied"
    assert w.shown("") == ""


def test_an_endless_answer_is_cut_and_its_codes_are_still_read() -> None:
    said = w.shown("x" * 5000 + "\nret=-8020\n", width=20)
    assert said.startswith("x" * 19 + "… (-8020: ")


def test_the_check_of_the_chips_shows_the_reason() -> None:
    text = f"{LOG_LEVEL}\ndcmi module initialize failed. ret is -8005\n"
    found = verdict.read(Answer("npu-smi", "info", text, 255))
    assert found.problem == "failed"
    assert "ret is -8005" in found.seen
    assert "-8005: the driver is not running" in found.seen
