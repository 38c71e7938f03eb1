#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: guard
short_description: Run the guard of a deployment on a server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Writes the guard's program, its configuration and its secret, for root alone, the systemd unit that runs
    it, and the command C(pd-guard). Starts the unit anew if something has changed, and waits until it is
    active.
  - The guard brings engines back after a crash or a reboot. It touches nothing while a rollout runs.
  - If a run ends in between, the next one goes on where it was.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Of the unit, which has no secret.
options:
  state:
    description: V(absent) stops the guard and removes its unit, its files and, unless another deployment's
      guard is here, its command.
    type: str
    choices: [present, absent]
    default: present
  guard:
    description: The guard of the server in the plan, C(pd_plan.hosts[inventory_hostname].guard). Required
      with O(state=present).
    type: dict
  settings:
    description: Its C(attempts), and the seconds C(pause), C(probe), C(stall), C(hang), C(canary) and
      C(answer), as the role C(guard) has them. Required with O(state=present).
    type: dict
    default: {}
  secret:
    description: What the guards of the deployment have in common, by which they recognize each other, as
      M(ascend.pd_rollout.guard_secret) returns it. Required with O(state=present).
    type: str
    default: ""
  directory:
    description: The deployment's directory on the server. Required with O(state=absent).
    type: str
  config:
    description: The text of the configuration. The action plugin makes it of O(guard) and O(settings).
    type: str
    default: ""
  program:
    description: The program in Base64. The action plugin sets it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Run the guard
  ascend.pd_rollout.guard:
    guard: "{{ pd_plan.hosts[inventory_hostname].guard }}"
    settings: {attempts: 5, pause: 10, probe: 5, stall: 8, hang: 60, canary: 60, answer: 10}
    secret: "{{ guard_secret.secret }}"

- name: Remove it
  ascend.pd_rollout.guard:
    state: absent
    directory: /etc/pd_rollout/pd
"""

RETURN = r"""
done:
  description: What was done, in order.
  returned: success
  type: list
  elements: str
  sample: [wrote guard.json, started]
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

from ..module_utils._module import run
from ..module_utils._serving import guard_unit


def main() -> None:
    run(guard_unit.ARGUMENTS, guard_unit.result)


if __name__ == "__main__":
    main()
