#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

# The documentation of an action; what runs is plugins/action/router_modules.py.

from __future__ import annotations

DOCUMENTATION = r"""
module: router_modules
short_description: Provide the Python modules of a router on its server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Looks on the server whether the modules are there. If they are not, it takes the wheels for the server's
    architecture from O(wheels) or from a cache of the controller, into which the controller's pip fetches
    them once, verifies their hashes, copies them to the server and has them unpacked there.
  - Nothing is fetched or copied if the modules are there already.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Neither fetches nor copies in check mode.
  diff_mode:
    support: none
options:
  runtime:
    description: The modules that the plan has for a router, C(pd_plan.hosts[<host>].proxy.runtime).
    type: dict
    required: true
  wheels:
    description: A directory on the controller with the wheels. If it is empty, pip fetches them with its own
      configuration.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Provide the modules of the router
  ascend.pd_rollout.router_modules:
    runtime: "{{ pd_plan.hosts[inventory_hostname].proxy.runtime }}"
"""

RETURN = r"""
findings:
  description: Why the modules cannot be provided, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
path:
  description: The directory with the modules.
  returned: success
  type: str
  sample: /etc/pd_rollout/pd/vllm-router-0.1.17-11ab482bc9d3
sent:
  description: Size of the wheels that were copied to the server, in bytes.
  returned: success
  type: int
"""
