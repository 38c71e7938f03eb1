#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: measurement_info
short_description: Look at a measurement that runs in a container, and let it go on
version_added: 0.2.0
description:
  - Reports how far the commands of role C(measurement) are, and how they ended.
  - Touches the folder's C(heartbeat). Without it the container ends by itself, so that none is left behind
    when nobody waits any longer.
  - A long poll. It returns when the progress has changed or the end has come, at the latest after O(hold).
    The action M(ascend.pd_rollout.measurement_wait) calls it again and again.
author:
  - The ascend.pd_rollout authors
requirements:
  - Python 3.7 or later
attributes:
  check_mode:
    description: Can run in check mode and reports the same, as it only looks.
    support: full
  diff_mode:
    description: Shows differences when it changes something.
    support: none
options:
  directory:
    description: The measurement's folder on the server.
    type: path
    required: true
  container:
    description: Name of its container.
    type: str
    required: true
  known:
    description: The RV(progress) of the last report.
    type: str
    default: ""
  hold:
    description: Seconds after which the report comes even if nothing has changed.
    type: float
    default: 5
  log_lines:
    description: How many of the last lines of the log are returned at the end.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Look at the benchmark
  ascend.pd_rollout.measurement_info:
    directory: /etc/pd_rollout/pd-benchmark
    container: pd-benchmark
"""

RETURN = r"""
running:
  description: Whether the commands are still at work.
  returned: success
  type: bool
exit_code:
  description: How they ended; V(null) while they run, and when the container vanished without leaving word.
  returned: success
  type: int
  sample: 0
progress:
  description: How far they are, in words.
  returned: success
  type: str
  sample: "run 1 of 2: one request at a time, 7 of 20"
log:
  description: The last lines of the log.
  returned: success
  type: list
  elements: str
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.client import DockerApi, DockerError
from ..module_utils._serving.measurement_log import last_lines, progress, tail_of

POLL_SECONDS = 0.5


def exit_code_of(folder):
    """How the commands ended, or None."""
    try:
        return int((folder / "exit_code").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def look(folder, container, api):
    """(running, exit code) at this moment."""
    found = api.inspect(container)
    # With its word written it ends in a moment; who removes it must not meet it half way.
    if found is not None and found["State"]["Status"] in ("created", "running"):
        return True, None
    # Read last: its word is the last that a container does.
    return False, exit_code_of(folder)


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "container": {"type": "str", "required": True},
            "known": {"type": "str", "default": ""},
            "hold": {"type": "float", "default": 5},
            "log_lines": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    p = module.params
    folder, api = Path(p["directory"]), DockerApi()
    end = time.monotonic() + p["hold"]
    try:
        os.utime(folder / "heartbeat")
        while True:
            running, code = look(folder, p["container"], api)
            text = tail_of(folder / "log")
            far = progress(text)
            if not running or far != p["known"] or time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
    except OSError as error:
        module.fail_json(msg=f"The measurement's folder has gone: {error}")
    except DockerError as error:
        module.fail_json(msg=str(error))
    lines = last_lines(text, p["log_lines"])
    module.exit_json(changed=False, running=running, exit_code=code, progress=far, log=lines)


if __name__ == "__main__":
    main()
