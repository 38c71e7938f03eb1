# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

# The documentation of an action; what runs is plugins/action/engine_wait.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_wait
short_description: Wait until the engines of a host are ready, with progress on the screen
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Watches the containers of this host's slice of the plan until all of them are ready. Prints a line when
    an engine enters another phase according to its log (waiting for peers, loading shards 43 of 163,
    capturing graphs, ready).
  - Fails within seconds if a container ends or is restarted, and reports the engine's name, its exit code,
    the reason and the last lines of its log. It also ends the wait of all other hosts of the run.
  - If the nodes of an instance do not find each other, it names the missing rank.
  - An engine is ready when its API is healthy, a headless node when its instance's head is ready, and the
    proxy when its health check reports the planned numbers.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Waits for nothing in check mode.
  diff_mode:
    support: none
options:
  engines:
    description: Slices of the plan, C(pd_plan.hosts[<host>].engines).
    type: list
    elements: dict
    default: []
  proxy:
    description: Slice of the plan, C(pd_plan.hosts[<host>].proxy).
    type: dict
  started:
    description: Names of the containers that this run has started. For these, every restart is a failure.
    type: list
    elements: str
    default: []
  timeout:
    description: Timeout of the whole wait in seconds, counted from the first host that starts to wait.
    type: int
    default: 3600
notes:
  - The hosts of a play wait in parallel only if C(forks) is at least their number.
"""

EXAMPLES = r"""
- name: Wait until the engines are ready
  ascend.pd_rollout.engine_wait:
    engines: "{{ pd_plan.hosts[inventory_hostname].engines }}"
    timeout: 1800
"""

RETURN = r"""
seconds:
  description: Seconds from the start of the wait until each engine was ready.
  returned: success
  type: dict
  sample: {prefiller rank 0: 812.4}
started:
  description: The same of the containers in O(started), by their names.
  returned: success
  type: dict
  sample: {pd-prefiller: 812.4}
findings:
  description: Why an engine or the proxy is not ready, one finding for each.
  returned: failure
  type: list
  elements: dict
  sample:
    - code: engine-ended
      severity: error
      host: decode1
      instance: decode1
      variable: null
      chips: []
      path: null
      files: []
      message: "decode1 on decode1 failed: its container is exited, exit code 1"
      seen: "ValueError: Model architectures ['Foo'] are not supported"
      expected: a container that runs until it is ready
      cure: "docker logs pd-decode1  # on decode1: the first error in it is the cause"
      source: the container's state and its log
"""
