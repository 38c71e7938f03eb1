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
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
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
findings:
  description: Why the engine was not reloaded, as one finding.
  returned: failure
  type: list
  elements: dict
  sample:
    - code: docker-not-reloaded
      severity: error
      host: null
      instance: null
      variable: null
      chips: []
      path: null
      files: []
      message: The Docker Engine did not apply its new configuration
      seen: no reload within 10 s
      expected: a reload event of the Docker Engine
      cure: journalctl -u docker | tail
      source: the Docker Engine's own message
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

from ..module_utils._docker import dockerd
from ..module_utils._docker.client import DEFAULT_SOCKET, DockerError

NOT_RELOADED = (
    "The Docker Engine did not apply its new configuration. It keeps the old one, but would not start again"
    " with this daemon.json."
)


def wait_for_reload(since: float, timeout: float, socket_path: str) -> dict[str, Any]:
    """Wait for a reload and return the attributes of its event.

    since: time of the signal, in seconds since the epoch.
    timeout: seconds to wait.
    socket_path: the engine's socket.

    Raises DockerError if there is no reload in time, or if the engine does not answer.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        events = dockerd.reload_events(since, time.time(), socket_path)
        if events:
            return dict(events[0].get("Actor", {}).get("Attributes", {}))
        time.sleep(dockerd.POLL_SECONDS)
    raise DockerError(f"no reload within {timeout} s", code="docker-not-reloaded")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "docker_socket": {"type": "path", "default": DEFAULT_SOCKET},
            "pid_file": {"type": "path", "default": dockerd.PID_FILE},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    pid = dockerd.daemon_pid(params["pid_file"])
    if pid is None:
        seen = f"{params['pid_file']} names no running dockerd"
        error = DockerError(seen, code="docker-process-unknown")
        module.fail_json(**error.failure("The Docker Engine cannot be reloaded."))
        return
    if module.check_mode:
        module.exit_json(changed=True, pid=pid)
    since = time.time()
    try:
        os.kill(pid, signal.SIGHUP)
        attributes = wait_for_reload(since, params["timeout"], params["docker_socket"])
    except (OSError, DockerError) as error:
        failed = DockerError(str(error), code="docker-not-reloaded")
        module.fail_json(**failed.failure(NOT_RELOADED), pid=pid)
    module.exit_json(changed=True, pid=pid, attributes=attributes)


if __name__ == "__main__":
    main()
