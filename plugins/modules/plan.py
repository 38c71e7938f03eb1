# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin plan, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan a prefill/decode rollout from the inventory
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Reads the groups C(prefiller), C(decoder) and C(proxy) and the C(pd_) variables of their
    hosts, and computes everything that will run, that is instances, node ranks, engine IDs,
    ports, environment, arguments, launch scripts and containers.
  - Checks the inventory against every rule of the release and reports all findings at once.
    Errors fail the task, warnings are printed. Hints are in the plan's C(findings) and are
    printed with C(-v).
  - Runs on the controller only. No host is contacted.
  - Use it with C(run_once), so that the plan is computed once for the whole cluster and every
    host of the play gets it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  write:
    description:
      - Write the plan's files. They are C(plan.json), C(<host>/<instance>.sh),
        C(<host>/proxy.sh), C(topology.md) and C(topology.svg). Nothing is written if a rule is
        broken.
    type: bool
    default: false
  dest:
    description:
      - Where the files are written. The default is the variable C(pd_plan_dir), or C(plans/<inventory
        name>) in the current directory. The name is that of the inventory's folder. For a file beside other
        inventories it is C(<folder>-<file>), and the names of several inventories are joined by C(+).
    type: path
  every_deployment:
    description:
      - Plan every deployment that has a host in the play, if the inventory has several
        (C(pd_deployment)). There is no C(pd_plan) then. Without this option, a play with hosts of more than
        one deployment fails.
      - The files of each deployment are written to a directory of its own below O(dest).
    type: bool
    default: false
  made:
    description:
      - A plan that was registered by an earlier task with O(fact=false). Its files are written and nothing is
        planned.
      - In this way a run can acquire the servers' locks in between, and does not overwrite the files of
        another run that holds them.
    type: dict
  topology:
    description:
      - The topology that the inventory must describe, such as C(1P1D). Any other topology is an error.
    type: str
  fact:
    description:
      - Set the plan as the fact C(pd_plan). With V(false) the task's result is the plan, to be
        registered as C(pd_plan).
      - Both are used in the same way. However, Ansible copies all facts of a host for each of its
        tasks, so with hundreds of hosts the fact slows a run down by the square of their number, and
        the registered result does not. The playbooks of this collection register the result.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Plan the cluster once, for all hosts of the play
  ascend.pd_rollout.plan:
    fact: false
  run_once: true
  register: pd_plan

- name: Write the files of that plan
  ascend.pd_rollout.plan:
    made: "{{ pd_plan }}"
  run_once: true

- name: Show where the first engine of this host serves
  ansible.builtin.debug:
    var: pd_plan.hosts[inventory_hostname].engines[0].api

- name: Write the launch scripts, and fail unless this is one prefiller and one decoder
  ascend.pd_rollout.plan:
    write: true
    topology: 1P1D
    fact: false
  run_once: true
  register: pd_plan
"""

RETURN = r"""
ansible_facts:
  description: The plan, as the fact C(pd_plan). With O(fact=false) its keys are those of the result.
  returned: success, when O(fact) is true
  type: complex
  contains:
    pd_plan:
      description: Everything that will run, and where. The file C(plan.json) has the same content.
      type: dict
      returned: success
      sample:
        version: 1
        topology: 1P1D
        instances:
          - name: prefiller
            role: prefiller
            nodes: [prefill1, prefill2]
            engine_ids: [prefiller-0, prefiller-1]
            kv_port: 36100
hash:
  description: SHA-256 of the plan's content.
  returned: success
  type: str
  sample: 5d0c1f0b6f5f5c3d5d9c0f1e1c7d1c0a9f5e4b3a2d1c0b9a8f7e6d5c4b3a2f10
directory:
  description: Directory in which the files are, or would be; with several plans, that of the last one.
  returned: success
  type: str
  sample: /home/operator/plans/atlas_a3_1p1d
outside:
  description: Servers on which the deployment was launched and which are not in the plan, each with its
    address and its containers, according to the file C(deployed.json) in RV(directory), or else the last
    plan.
  returned: success
  type: dict
  sample: {decode2: {address: 192.0.0.4, directory: /etc/pd_rollout/pd, containers: [pd-decode2]}}
files:
  description: The files that changed, below RV(directory).
  returned: when O(write) is true, or with O(made)
  type: list
  elements: str
  sample: [plan.json, prefill1/prefiller.sh]
"""
