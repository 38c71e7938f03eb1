#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_steps
short_description: Compute the steps from what runs to what is planned
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(rollout).
  - An action that runs on the controller. One task with C(run_once) handles all servers. It reads the results
    of M(ascend.pd_rollout.deployment_info) for each of them, about engines and routers together.
  - Prints the steps with what serves during each of them, and how long the last starts took.
  - Fails if the service would be interrupted and O(accept_outage) is not set.
  - In check mode the result has one step with all that would change.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.looks
  - ascend.pd_rollout.options.plan
options:
  accept_outage:
    description: Whether the service may be interrupted.
    type: bool
    default: false
  max_unavailable:
    description: The number of instances of a role that are changed at once, while another one serves.
    type: int
    default: 1
  restart:
    description: Instances that are restarted although they are as planned.
    type: list
    elements: str
    default: []
  only:
    description: The instances that may be changed. The others stay as they are. Empty for all, or for
      those of O(drain) and O(undrain).
    type: list
    elements: str
    default: []
  drain:
    description: Servers that are taken out of service.
    type: list
    elements: str
    default: []
  drain_stop:
    description: Whether the engines on servers of O(drain) are stopped.
    type: bool
    default: false
  undrain:
    description: Servers that are taken back into service.
    type: list
    elements: str
    default: []
  engines:
    description: Whether engines may be changed.
    type: bool
    default: true
  routers:
    description: Whether routers may be changed.
    type: bool
    default: true
  quiet:
    description: Whether nothing is printed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Determine the steps
  ascend.pd_rollout.deployment_steps:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts }}"
    result: rollout_found
  run_once: true
  register: rollout_steps
"""

RETURN = r"""
steps:
  description: The steps in their order.
  returned: success
  type: list
  elements: dict
  contains:
    number:
      description: Its number, from 1.
      type: int
      returned: always
    title:
      description: What it does.
      type: str
      returned: always
      sample: make anew prefill1, decode1
    lists:
      description: The APIs that the routers are to list from now on; none if they stay as they are. Empty
        lists close the front.
      type: dict
      returned: always
    closed:
      description: Whether the front is closed.
      type: bool
      returned: always
    outage:
      description: Whether requests get no answer during the step.
      type: bool
      returned: always
    changes:
      description: Whether engines are ended or started.
      type: bool
      returned: always
    canary:
      description: The instances whose answers are compared before the next step; none if nothing starts.
      type: dict
      returned: always
    hosts:
      description: What each server does, with its routers, engines, and containers to drain, stop and remove.
      type: dict
      returned: always
outages:
  description: Why the service is interrupted; empty if it is not.
  returned: success
  type: list
  elements: str
  sample: [decode1 is the only decoder]
lists:
  description: The APIs that the routers list at the end.
  returned: success
  type: dict
  sample:
    prefillers: [{host: 198.51.100.11, port: 8004}]
    decoders: [{host: 198.51.100.13, port: 8004}]
canary:
  description: The instances that serve at the end, with their APIs.
  returned: success
  type: dict
known:
  description: What pairs answered in the newest revision, of those whose instances have the same version now.
  returned: success
  type: dict
keep:
  description: Whether the result of the run is a revision to be kept, if it succeeds.
  returned: success
  type: bool
guarded:
  description: Whether the guards of all servers are as planned, or stay as they are because the run is about
    a part of the deployment.
  returned: success
  type: bool
settled:
  description: Whether there is nothing to do, and no server to mark.
  returned: success
  type: bool
findings:
  description: Why the change does not begin, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""
