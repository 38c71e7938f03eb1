#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: Watch engines while they start, and report changes
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Reports for each container whether it is running, how often the Docker Engine has restarted it, how it
    ended, the progress of its engine according to its log, and whether its API answers.
  - A long poll. It returns when a state differs from the one that the caller knows, at once if a container
    is not running or everything is ready, and at the latest after O(hold).
  - Changes nothing, except with O(targets[].stop).
  - The action M(ascend.pd_rollout.engine_wait) calls it repeatedly.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
attributes:
  check_mode:
    support: full
    details: Changes nothing, except with O(targets[].stop).
  diff_mode:
    support: none
options:
  targets:
    description: The containers to watch.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the container.
        type: str
        required: true
      health_url:
        description: URL that answers with status 200 when the container is ready. Without it the log decides.
        type: str
      health_expect:
        description: Keys and values that the JSON answer of O(targets[].health_url) must contain.
        type: dict
        default: {}
      ranks:
        description:
          - The data-parallel ranks that each have an API server in the container.
          - The container is ready when all of them answer; its phase is that of the slowest rank.
        type: list
        elements: dict
        default: []
        suboptions:
          rank:
            description: Number of the rank, which prefixes its lines in the log.
            type: int
            required: true
          health_url:
            description: URL that answers with status 200 when the rank is ready.
            type: str
            required: true
      known:
        description: The RV(targets[].fingerprint) of the previous report; empty for the first call.
        type: str
        default: ""
      baseline:
        description: Number of restarts before the watch began, which do not count.
        type: int
      stop:
        description:
          - Whether to stop the container if it has failed, so that the Docker Engine does not restart it
            forever.
          - For containers that the caller has started. Others are left to their restart policy.
        type: bool
        default: false
  hold:
    description: Seconds after which it reports even if nothing has changed.
    type: float
    default: 4
  settle:
    description: Seconds during which mere progress is collected, so that a fast log does not cause a
      report for every line.
    type: float
    default: 1
  log_lines:
    description: Number of last log lines in a report.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Inspect the decoder once
  ascend.pd_rollout.engine_info:
    targets:
      - name: pd-decode1
        health_url: http://192.0.0.3:8004/health
    hold: 0
"""

RETURN = r"""
targets:
  description: One entry for each of O(targets), in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the container.
      type: str
      returned: always
      sample: pd-decode1
    status:
      description: State of the container in the Docker Engine's terms, or V(missing).
      type: str
      returned: always
      sample: running
    stopped:
      description: Whether it was stopped because of O(targets[].stop).
      type: bool
      returned: always
    failed:
      description: Whether it is not running, or has been restarted since the watch began.
      type: bool
      returned: always
    ready:
      description: Whether it is running and ready.
      type: bool
      returned: always
    exit_code:
      description: Exit code of the last process, V(null) while the first one runs.
      type: int
      returned: always
    oom_killed:
      description: Whether the kernel killed it because it ran out of memory.
      type: bool
      returned: always
    error:
      description: The Docker Engine's message about a failed start.
      type: str
      returned: always
    restart_count:
      description: Restarts by the Docker Engine since the container was started.
      type: int
      returned: always
    started_at:
      description: Time of the last start, by the server's clock.
      type: str
      returned: always
    phase:
      description: Phase of the start, or V(null) if the last lines of the log do not show it.
      type: str
      returned: always
      sample: loading shards
    done:
      description: Count within the phase.
      type: int
      returned: always
      sample: 43
    total:
      description: Total of RV(targets[].done).
      type: int
      returned: always
      sample: 163
    rank:
      description: The rank to which RV(targets[].phase) belongs, if there are ranks that are not ready.
      type: int
      returned: always
      sample: 19
    ready_ranks:
      description: How many of O(targets[].ranks) answer.
      type: int
      returned: always
      sample: 12
    joined:
      description: Number of nodes that have joined the group, and number expected, if the log shows them.
      type: list
      elements: int
      returned: always
      sample: [1, 2]
    health:
      description: Result of the health probe.
      type: str
      returned: always
      sample: connection refused
    reason:
      description: The line of the log with the cause of the failure.
      type: str
      returned: if it failed and the log shows the cause
    log:
      description: The last lines of the log; after a restart, those before it.
      type: list
      elements: str
      returned: always
    fingerprint:
      description: Changes with anything worth a report. Pass it to the next call as O(targets[].known).
      type: str
      returned: always
"""

from ..module_utils._module import run
from ..module_utils._serving import engine_status


def main() -> None:
    run(engine_status.ARGUMENTS, engine_status.info)


if __name__ == "__main__":
    main()
