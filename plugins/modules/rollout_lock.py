#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Keep two rollouts from working on one server at once
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Takes or gives back the server's lock. The lock says who holds it and since when, so does the message of
    the second rollout.
  - While the run goes on, a process beside it on the controller touches the lock every half minute, and gives
    it back when the run has ended without doing so itself, because it failed, was interrupted or killed.
  - If that process is gone too, the lock is taken over by the next rollout, and that is said. On the
    controller where it ran, a run has ended if its process is gone; elsewhere O(max_silence) decides, or
    O(max_age) of a lock that was never touched.
  - A server that boots anew has no lock.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
    details: Looks at the lock, and takes none.
  diff_mode:
    support: none
options:
  state:
    description: Take it, or give it back. Only one's own lock is given back.
    type: str
    choices: [present, absent]
    default: present
  deployment:
    description: What is rolled out, for the message.
    type: str
    default: pd
  path:
    description: The file.
    type: path
    default: /run/pd_rollout.lock
  max_age:
    description:
      - Seconds after which a lock counts as left behind if its run has never given a sign of life (a server
        without C(flock)).
    type: int
    default: 21600
  max_silence:
    description: Seconds without a sign of life after which a lock counts as left behind.
    type: int
    default: 300
  force:
    description: Take over any lock. For somebody who knows that the other run has ended.
    type: bool
    default: false
  owner:
    description: Who takes it. The action finds it out.
    type: dict
  replace:
    description: The run whose lock may be taken over. The action finds it out.
    type: str
notes:
  - RV(ignore:changed) stays false. The lock is gone when the run is over.
"""

EXAMPLES = r"""
- name: Lock the server for this rollout
  ascend.pd_rollout.rollout_lock:

- name: Give the lock back
  ascend.pd_rollout.rollout_lock:
    state: absent
"""

RETURN = r"""
holder:
  description: Who has the lock now, if it is somebody else.
  returned: if refused
  type: dict
  sample: {user: alice, controller: control1, pid: 4711, deployment: pd, since: 1767323045.5, silent: 12.1}
taken_over:
  description: Whose lock was taken over, and why.
  returned: if one was
  type: str
released:
  description: Whether this run had the lock.
  returned: with O(state=absent)
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._findings import text_of
from ..module_utils._lock import ARGUMENTS, LockError, RolloutLock


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
    )
    owner = module.params["owner"]
    if not owner or not owner.get("run"):
        module.fail_json(msg="the action of this name says who takes the lock; it did not run")
    lock = RolloutLock(module.params["path"])
    try:
        if module.params["state"] == "absent":
            module.exit_json(changed=False, released=lock.release(owner["run"], module.check_mode))
        holder = lock.acquire(owner, module.params["replace"], module.check_mode)
    except LockError as error:
        module.fail_json(msg=text_of(error.findings), finding=error.finding.to_dict())
    module.exit_json(changed=False, holder=holder)


if __name__ == "__main__":
    main()
