# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter guard_digests: what a server's guard must be, without its secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: guard_digests
short_description: SHA-256 of the files of a guard, by which a server finds those that differ
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors
description:
  - Internal to the role C(rollout). Takes the guard of a server in the plan, and returns what
    M(ascend.pd_rollout.deployment_info) compares, without the launch scripts of routers that the guard has.
options:
  _input:
    description: The guard in the plan, C(pd_plan.hosts[inventory_hostname].guard); empty without one.
    type: dict
    required: true
  settings:
    description: Its settings, as those of M(ascend.pd_rollout.guard).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which files the guard of this server has
  ansible.builtin.debug:
    msg: >-
      {{ (pd_plan.hosts[inventory_hostname].guard
          | ascend.pd_rollout.guard_digests(settings=guard_settings)).digests.keys() | list }}
  vars:
    guard_settings: {attempts: 5, pause: 10, probe: 5, stall: 8, hang: 60, canary: 60, answer: 10}
  # => ['pd-guard.pyz', 'guard.json']
"""

RETURN = r"""
_value:
  description: The C(unit), C(directory), C(run) and C(service) of the guard, and the C(digests) of its files.
    Empty without a guard.
  type: dict
"""

from typing import Any

from ..plugin_utils._filters import guarded
from ..plugin_utils._serving import guard_program


class FilterModule:
    """Digests of the guard's files."""

    def filters(self) -> dict[str, Any]:
        return {"guard_digests": guard_digests}


@guarded
def guard_digests(guard: Any, settings: Any) -> dict[str, Any]:
    """Return the guard without its configuration, with the SHA-256 of its files; empty without one.

    guard: the guard in the plan.
    settings: its settings.
    """
    # Judged also where no guard is planned: a wrong value is one, whichever server has it.
    guard_program.numbers(settings)
    if not guard:
        return {}
    return {**guard_program.reduced(guard), "digests": guard_program.digests(guard, settings)}
