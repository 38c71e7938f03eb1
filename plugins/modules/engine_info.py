#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: Look at engines while they start, and report when something changes
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Reports for each container whether it runs, how often the Docker Engine has restarted it, how it ended,
    how far the
    engine in it has come by its own log, and whether its API answers.
  - A long poll. It returns when a state differs from what the caller knows, at once when a container is
    not running
    or everything is ready, and at the latest after O(hold).
  - Changes nothing, except with O(targets[].stop).
  - The action M(ascend.pd_rollout.engine_wait) calls it again and again.
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
    description: The containers to look at.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the container.
        type: str
        required: true
      health_url:
        description: Answers 200 when what runs in the container is ready. Without it the log decides.
        type: str
      health_expect:
        description: What the JSON answer of O(targets[].health_url) must hold.
        type: dict
        default: {}
      ranks:
        description:
          - The data-parallel ranks that have a server each in the container.
          - It is ready when all of them answer; its phase is that of the rank that is least far.
        type: list
        elements: dict
        default: []
        suboptions:
          rank:
            description: Number of the rank, as the log's lines begin with it.
            type: int
            required: true
          health_url:
            description: Answers 200 when the rank is ready.
            type: str
            required: true
      known:
        description: The RV(targets[].fingerprint) of the last report, empty at first.
        type: str
        default: ""
      baseline:
        description: Restarts that happened before the watch and do not count.
        type: int
      stop:
        description:
          - Stop the container when it has failed, so that the Docker Engine does not start it without end.
          - For one that the caller has started. What has served before is left to its restart policy.
        type: bool
        default: false
  hold:
    description: Seconds after which the report comes even if nothing changed.
    type: float
    default: 4
  settle:
    description: Seconds during which mere progress is collected, so that a fast log does not cause a
      report a line.
    type: float
    default: 1
  log_lines:
    description: Number of last log lines in a report.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Look at the decoder once
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
      description: State of the container as the Docker Engine names it, or V(missing).
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
      description: Whether the kernel killed it for want of memory.
      type: bool
      returned: always
    error:
      description: What the Docker Engine says about a start that failed.
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
      description: How far the engine is, or V(null) when the last lines of the log do not tell.
      type: str
      returned: always
      sample: loading shards
    done:
      description: Count within the phase.
      type: int
      returned: always
      sample: 43
    total:
      description: What RV(targets[].done) counts up to.
      type: int
      returned: always
      sample: 163
    rank:
      description: The rank that RV(targets[].phase) is of, where there are ranks that are not ready.
      type: int
      returned: always
      sample: 19
    ready_ranks:
      description: How many of O(targets[].ranks) answer.
      type: int
      returned: always
      sample: 12
    joined:
      description: Nodes of the group that have come and that are expected, when the log tells.
      type: list
      elements: int
      returned: always
      sample: [1, 2]
    health:
      description: What the health probe saw.
      type: str
      returned: always
      sample: connection refused
    reason:
      description: The line of the log that says why it failed.
      type: str
      returned: when it failed and the log tells
    log:
      description: The last lines of the log. After a restart those before it.
      type: list
      elements: str
      returned: always
    fingerprint:
      description: Differs when anything worth a report differs. Give it back as O(targets[].known).
      type: str
      returned: always
"""

from ..module_utils._module import run
from ..module_utils._serving import engine_status


def main() -> None:
    run(engine_status.ARGUMENTS, engine_status.info)


if __name__ == "__main__":
    main()
