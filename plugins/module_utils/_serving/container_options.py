# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The label of a container that tells whether it was made with the options that it should have now.

A rollout and the guard make routers: both must write the same, or the next rollout would make them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

OPTIONS = "pd_rollout.options"
_OF_THE_SLICE = ("image", "command", "shm_size", "devices", "mounts")


def digest(part: Mapping[str, Any], policy: str, log_options: Mapping[str, str], stop_timeout: int) -> str:
    """Return the SHA-256 of a container's options.

    part: its slice of the plan.
    policy: the restart policy that it has without a guard: with one it can be changed while it runs.
    log_options: options of the log driver.
    stop_timeout: seconds from the stop signal until it is killed.
    """
    content = {
        **{key: part.get(key) for key in _OF_THE_SLICE},
        "restart_policy": policy,
        "log_options": dict(log_options),
        "stop_timeout": stop_timeout,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
