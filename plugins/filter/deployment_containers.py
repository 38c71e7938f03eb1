# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter deployment_containers: adds the container options that are not in the plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: deployment_containers
short_description: Containers of the plan with the options of the role _container
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors
description:
  - Adds the options with which the internal role C(_container) creates the containers to slices of the plan.
  - A label contains a hash of all options, by which M(ascend.pd_rollout.deployment_info) detects containers
    that were created with other options.
options:
  _input:
    description: Slices of the plan, C(pd_plan.hosts[inventory_hostname].engines) or its C(proxy) in a list.
    type: list
    elements: dict
    required: true
  stop_timeout:
    description: Seconds from the stop signal until the container is killed.
    type: int
    required: true
  log_max_size:
    description: Size at which a container's log is rotated.
    type: str
    required: true
  log_max_file:
    description: Number of rotated logs that are kept.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the restart policies of this server's engines
  ansible.builtin.debug:
    msg: >-
      {{ pd_plan.hosts[inventory_hostname].engines
         | ascend.pd_rollout.deployment_containers(stop_timeout=30, log_max_size='100m', log_max_file=5)
         | map(attribute='restart_policy') }}
  # => ['no']
"""

RETURN = r"""
_value:
  description: The slices with C(restart_policy), C(log_options), C(health), which are the container's health
    checks, and another label.
  type: list
  elements: dict
"""

from typing import Any

from ..module_utils._serving.container_options import OPTIONS, digest
from ..plugin_utils._filters import guarded
from ..plugin_utils._serving.health import health_checks


class FilterModule:
    """Options of containers."""

    def filters(self) -> dict[str, Any]:
        return {"deployment_containers": deployment_containers}


@guarded
def deployment_containers(
    slices: Any, stop_timeout: Any, log_max_size: Any, log_max_file: Any
) -> list[dict[str, Any]]:
    """Return the slices of the plan with the options of their containers.

    slices: slices of the plan.
    stop_timeout: seconds from the stop signal until a container is killed.
    log_max_size: size at which a log is rotated, as text.
    log_max_file: number of rotated logs that are kept.
    """
    log_options = {"max-size": str(log_max_size), "max-file": str(log_max_file)}
    return [_container(part, int(stop_timeout), log_options) for part in slices]


def _container(part: Any, stop_timeout: int, log_options: dict[str, str]) -> dict[str, Any]:
    nodes = (part.get("ready") or {}).get("nodes") or []
    # A node of a group cannot join it again, so the Docker Engine must not start it alone.
    alone = "no" if len(nodes) > 1 else "unless-stopped"
    options = {
        # An engine that dies while it serves exits with 0, and so does everything when the Docker Engine
        # stops: only this policy, or the guard, brings it back.
        "restart_policy": "no" if part.get("guarded") else alone,
        "log_options": log_options,
    }
    # The policy of a running container can be changed: with the guard no engine is made anew.
    label = {OPTIONS: digest(part, alone, log_options, stop_timeout)}
    return {**part, **options, "health": health_checks(part), "labels": {**part["labels"], **label}}
