#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_reload
short_description: Reload the Docker Engine's configuration and verify that it took effect
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Sends SIGHUP to C(dockerd), as C(systemctl reload docker) does, so it works with any service manager. No
    container is affected.
  - Then waits for the engine's reload event. An engine that rejects the new configuration only logs that and
    keeps the old one; this module fails instead.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  pid_file:
    description: The file with the engine's process ID.
    type: path
    default: /var/run/docker.pid
  timeout:
    description: Seconds within which the engine must reload.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Reload the Docker Engine
  ascend.pd_rollout.docker_reload:
"""

RETURN = r"""
pid:
  description: The engine's process ID.
  returned: always
  type: int
attributes:
  description: The engine's configuration in effect, as reported in its reload event.
  returned: if it was reloaded
  type: dict
  sample:
    registry-mirrors: '["https://mirror.example/"]'
"""

import os
import signal
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker import engine
from ..module_utils._docker.client import DEFAULT_SOCKET, DockerError


def wait_for_reload(since: float, timeout: float, socket_path: str) -> dict[str, Any]:
    """The attributes of the first reload after ``since``; raises DockerError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        events = engine.reload_events(since, time.time(), socket_path)
        if events:
            return dict(events[0].get("Actor", {}).get("Attributes", {}))
        time.sleep(engine.POLL_SECONDS)
    raise DockerError(f"no reload within {timeout} s")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "docker_socket": {"type": "path", "default": DEFAULT_SOCKET},
            "pid_file": {"type": "path", "default": engine.PID_FILE},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    pid = engine.daemon_pid(params["pid_file"])
    if pid is None:
        module.fail_json(
            msg=f"{params['pid_file']} names no running dockerd, so it cannot be told to reload. "
            "If the engine runs under another supervisor, restart it there."
        )
        return
    if module.check_mode:
        module.exit_json(changed=True, pid=pid)
    since = time.time()
    try:
        os.kill(pid, signal.SIGHUP)
        attributes = wait_for_reload(since, params["timeout"], params["docker_socket"])
    except (OSError, DockerError) as error:
        module.fail_json(
            msg=f"The Docker Engine did not take over its new configuration: {error}. It goes on with the "
            "old one, but would not start again with this daemon.json. Its log tells which option it "
            "refuses: journalctl -u docker, or /var/log/docker.log where there is no systemd.",
            pid=pid,
        )
    module.exit_json(changed=True, pid=pid, attributes=attributes)


if __name__ == "__main__":
    main()
