# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter canary_options: what a server asks the engines of the plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: canary_options
short_description: Options of a canary, from the plan
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors
description:
  - Returns the options of M(ascend.pd_rollout.canary) that follow from the plan, for the servers that ask.
  - These are the servers with a router; if there is none, the heads of the decoders.
options:
  _input:
    description: The plan, C(pd_plan).
    type: dict
    required: true
  host:
    description: Name of the server.
    type: str
    required: true
  hosts:
    description: Names of the servers in this run, C(ansible_play_hosts).
    type: list
    elements: str
    required: true
  every_router:
    description: Whether all of these servers ask, or only the first one in this run.
    type: bool
    default: false
  port:
    description: Port on which layerwise decoders reach the server; V(0) for any free one.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Show the decoders that this server asks
  ansible.builtin.debug:
    msg: >-
      {{ (pd_plan | ascend.pd_rollout.canary_options(inventory_hostname, ansible_play_hosts)).decoders
         | default([]) }}
  # => [{'instance': 'decode', 'apis': [{'host': '192.0.0.3', 'port': 8004}]}]
"""

RETURN = r"""
_value:
  description: The options C(prefillers), C(decoders), C(protocol), C(listen), C(release), C(model) and
    C(api_key_file); empty if this server does not ask.
  type: dict
"""

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ..plugin_utils._filters import count, guarded
from ..plugin_utils._serving import canary

LAST_PORT = 65535


class FilterModule:
    """Options of a canary."""

    def filters(self) -> dict[str, Any]:
        return {"canary_options": canary_options}


@guarded
def canary_options(
    plan: Any, host: Any, hosts: Any, every_router: Any = False, port: Any = 0
) -> dict[str, Any]:
    """Return the options of the module canary for a server, empty if it does not ask.

    plan: the plan.
    host: the server's name.
    hosts: names of the servers in this run.
    every_router: whether all servers that can ask do.
    port: where layerwise decoders reach the server; 0: any free port.
    """
    asking = [name for name in canary.askers(plan) if name in hosts]
    if host not in (asking if boolean(every_router) else asking[:1]):
        return {}
    return canary.canary_options(plan, host, count("port", port, LAST_PORT, 0))
