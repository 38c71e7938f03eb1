# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter host_requirements: a thin wrapper around plugin_utils/_checks/host_cluster.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_requirements
short_description: The plan's requirements of a server, for its check
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Extracts from the plan what M(ascend.pd_rollout.host_check) checks on one server. These are its address
    and NIC, devices, paths, ports, peers, the image, and the driver and firmware that the release recommends.
positional: host
options:
  _input:
    description: The plan, from the fact C(pd_plan) or the file C(plan.json).
    type: dict
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Check the server against the plan
  ascend.pd_rollout.host_check:
    requirements: "{{ pd_plan | ascend.pd_rollout.host_requirements(inventory_hostname) }}"
  # => {"name": "decode1", "address": "10.0.0.13", "chips": [0, 1, …], "devices": ["/dev/davinci0", …], …}
"""

RETURN = r"""
_value:
  description: The requirements.
  type: dict
"""

from typing import Any

from ..plugin_utils._checks.host_cluster import requirements
from ..plugin_utils._filters import guarded, host_share, known_release


class FilterModule:
    """The plan's requirements of a server."""

    def filters(self) -> dict[str, Any]:
        return {"host_requirements": host_requirements}


@guarded
def host_requirements(plan: Any, host: Any) -> dict[str, Any]:
    share = host_share(plan, host)
    release = known_release(plan["release"]["name"])
    return requirements(plan, share, str(host), release.driver, release.firmware).to_dict()
