#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Lock a server, so that only one rollout changes it at a time
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Acquires or releases the server's lock. The lock records its holder and start time, which a second rollout
    reports.
  - During the run, a process on the controller renews the lock every half minute, and releases it if the run
    ends without doing so itself, because it failed, was interrupted or was killed.
  - If that process is gone too, the next rollout takes over the lock and reports that. On the same
    controller, a run has ended if its process is gone; on others O(max_silence) decides, or O(max_age) for a
    lock that was never renewed.
  - A reboot of the server removes the lock.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
    details: Inspects the lock without acquiring it.
  diff_mode:
    support: none
options:
  state:
    description: Whether to acquire or release the lock. A run releases only its own lock.
    type: str
    choices: [present, absent]
    default: present
  deployment:
    description: Name of the deployment, for the message.
    type: str
    default: pd
  path:
    description: The lock file.
    type: path
    default: /run/pd_rollout.lock
  max_age:
    description:
      - Seconds after which a lock counts as abandoned if its run has never renewed it (a server without
        C(flock)).
    type: int
    default: 21600
  max_silence:
    description: Seconds without a renewal after which a lock counts as abandoned.
    type: int
    default: 300
  force:
    description: Whether to take over any lock. Use it only if you know that the other run has ended.
    type: bool
    default: false
  owner:
    description: The run that acquires the lock. Set by the action.
    type: dict
  replace:
    description: The run whose lock may be taken over. Set by the action.
    type: str
notes:
  - RV(ignore:changed) stays false, because the lock is gone when the run is over.
"""

EXAMPLES = r"""
- name: Lock the server for this rollout
  ascend.pd_rollout.rollout_lock:

- name: Release the lock
  ascend.pd_rollout.rollout_lock:
    state: absent
"""

RETURN = r"""
holder:
  description: The run that holds the lock, if it is another one.
  returned: if the lock is held by another run
  type: dict
  sample: {user: alice, controller: control1, pid: 4711, deployment: pd, since: 1767323045.5, silent: 12.1}
taken_over:
  description: Whose lock was taken over, and why.
  returned: if a lock was taken over
  type: str
released:
  description: Whether this run held the lock.
  returned: with O(state=absent)
  type: bool
findings:
  description: Which run holds the lock, or why its file cannot be read, written or removed; one finding.
  returned: failure
  type: list
  elements: dict
  sample:
    - code: lock-held
      severity: error
      host: prefill1
      instance: null
      variable: null
      chips: []
      path: /run/pd_rollout.lock
      files: []
      message: alice on control1 (process 4711) has been rolling out pd on prefill1
      seen: its last sign of life was 12 s ago
      expected: one rollout at a time
      cure: wait until it ends; if you know that it has ended, -e deploy_lock_force=true
      source: this collection, docs/architecture.md
"""

from ..module_utils._lock import ARGUMENTS, change
from ..module_utils._module import run


def main() -> None:
    run(ARGUMENTS, change)


if __name__ == "__main__":
    main()
