#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: revision_record
short_description: Write what is deployed as a revision on the controller
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(rollout).
  - An action that runs on the controller. One task with C(run_once) handles all servers. It reads the results
    of M(ascend.pd_rollout.deployment_info) for each of them, from after the change.
  - Writes the revision below C(history) in the directory of the plan, for its owner alone, unless plan,
    images and weights are those of the newest one. Keeps the last ten.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.looks
  - ascend.pd_rollout.options.plan
options:
  texts:
    description: Names of variables with answers of pairs, as M(ascend.pd_rollout.canary) returns them in
      RV(ignore:texts). Of the same pair, the later one holds.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Write the revision on the controller
  ascend.pd_rollout.revision_record:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts }}"
    result: container_found
    texts: [canary_result.texts]
  run_once: true
  register: rollout_revision
"""

RETURN = r"""
record:
  description: The newest revision, which is what is deployed.
  returned: success
  type: dict
  contains:
    revision:
      description: Its number, one more than the highest on the servers and the controller.
      type: int
      returned: always
    hash:
      description: SHA-256 of the plan.
      type: str
      returned: always
    deployment:
      description: Name of the deployment.
      type: str
      returned: always
    when:
      description: When the change ended, in UTC.
      type: str
      returned: always
      sample: "2026-03-01T10:15:00Z"
    who:
      description: Who deployed it, and from which controller.
      type: str
      returned: always
      sample: operator@controller
    release:
      description: The release of vllm-ascend.
      type: str
      returned: always
      sample: v0.13.0
    topology:
      description: The topology.
      type: str
      returned: always
      sample: 2P2D
    image:
      description: The image's name, and its IDs on the servers.
      type: dict
      returned: always
      sample: {reference: "registry.example/ascend/vllm-ascend:v0.13.0-a3", ids: ["sha256:1f2e"]}
    weights:
      description: SHA-256 of the file C(SHA256SUMS) beside the weights; empty without one.
      type: str
      returned: always
    instances:
      description: Of each instance its role, its version, and from what its containers were made.
      type: dict
      returned: always
    routers:
      description: From what the routers of each server were made.
      type: dict
      returned: always
    fronts:
      description: SHA-256 of the configuration of the front of each server.
      type: dict
      returned: always
    servers:
      description: The servers and their addresses.
      type: dict
      returned: always
    seconds:
      description: How long the last start of each node took, by instance and server.
      type: dict
      returned: always
    texts:
      description: What each pair has answered.
      type: dict
      returned: always
folder:
  description: Its folder on the controller.
  returned: success
  type: str
  sample: /home/operator/plans/atlas_a3_2p2d/history/0004
keepers:
  description: The servers on which it is to be kept.
  returned: success
  type: list
  elements: str
  sample: [proxy1]
"""
