#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_info
short_description: Report whether a Docker Engine is installed and answers
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Inspects the server's Docker Engine with Python alone. On a fresh server it therefore reports what is
    missing, where the modules of C(community.docker) could only fail.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
options:
  wait:
    description:
      - Seconds to wait for the engine to answer. If it does not, the task fails.
      - With V(0) it is queried once, and an engine that does not answer is a result, not a failure.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Inspect the Docker Engine
  ascend.pd_rollout.docker_info:
  register: engine

- name: Wait until the engine answers after a restart
  ascend.pd_rollout.docker_info:
    wait: 60
"""

RETURN = r"""
check_mode:
  description: Whether the task ran in check mode, set by command line, play, block or task.
  returned: always
  type: bool
installed:
  description: Whether C(dockerd) is on the server.
  returned: always
  type: bool
running:
  description: Whether the engine answers.
  returned: always
  type: bool
reason:
  description: Why it does not answer.
  returned: if it does not
  type: str
  sample: no socket /var/run/docker.sock
version:
  description: The engine's version.
  returned: if it answers
  type: str
  sample: 20.10.24
containers_running:
  description: Number of running containers.
  returned: if it answers
  type: int
live_restore:
  description: Whether containers survive a restart of the engine.
  returned: if it answers
  type: bool
root_directory:
  description: Where the engine keeps images and containers.
  returned: if it answers
  type: str
  sample: /var/lib/docker
enabled:
  description: Whether the engine starts at boot; null if that is unknown.
  returned: always
  type: bool
python_requests:
  description: Whether the Python that runs modules can import C(requests), which C(community.docker) needs.
  returned: always
  type: bool
"""

from ..module_utils._docker import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.INFO_ARGUMENTS, entry.docker_info)


if __name__ == "__main__":
    main()
