# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is reported of a transfer that does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.docker_image_transfer import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TRANSFER_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import ImageStatus
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.image_state import ImageState

FOUND = TRANSFER_CHECKS.finding("image-disk-full", seen="1 MB free").to_dict()
STARTED = ImageStatus().to_dict()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"failed": True, "msg": "no", "findings": [FOUND]}, "image-disk-full"),
        ({"status": {**STARTED, "phase": "failed", "finding": FOUND}}, "image-disk-full"),
        ({"failed": True, "msg": "a reason of Ansible"}, "image-transfer-failed"),
        ({"status": STARTED}, "image-transfer-failed"),
    ],
    ids=["the module failed", "the process failed", "neither says why", "it has no port"],
)
def test_a_transfer_that_does_not_start_says_why(tmp_path: Path, answer: dict[str, Any], code: str) -> None:
    action = ActionModule.__new__(ActionModule)
    action._host, action._part = "decode1", {"kind": "peers", "order": []}
    action._options = {
        **{name: option.get("default") for name, option in ActionModule.ARGUMENTS.items()},
        "image": "x:1",
    }
    action._state = ImageState(tmp_path)
    action._job = lambda **_: answer
    result = action._start()
    assert result["failed"]
    assert [(finding["code"], finding["host"]) for finding in result["findings"]] == [(code, "decode1")]
    assert action._state.hosts()["decode1"]["failed"], "the others are told"
