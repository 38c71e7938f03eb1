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
  - Watches the containers of this host's slice of the plan until each of them is ready. A line on the
    screen tells
    when an engine is in another phase, by its own log (waiting for peers, loading shards 43 of 163,
    capturing graphs, ready).
  - Fails within seconds when a container ends or is restarted, with the engine's name, its exit code, the
    reason and the last
    lines of its log, and ends the wait of all other hosts of the run as well.
  - When the nodes of an instance do not find each other it names the rank that is missing.
  - An engine is ready when its API is healthy, a headless node when its instance's head is, the proxy when
    its health check
    reports the planned numbers.
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
    description: Names of the containers that this run has started. For them every restart is a failure.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for the whole wait, counted from the first host that comes to it.
    type: int
    default: 3600
notes:
  - The hosts of a play wait side by side only if C(forks) is not less than their number.
"""

EXAMPLES = r"""
- name: Wait until the engines are ready
  ascend.pd_rollout.engine_wait:
    engines: "{{ pd_plan.hosts[inventory_hostname].engines }}"
    timeout: 1800
"""

RETURN = r"""
seconds:
  description: Seconds from the begin of the wait until each was ready.
  returned: success
  type: dict
  sample: {prefiller rank 0: 812.4}
"""
