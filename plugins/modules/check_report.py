#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: check_report
short_description: Report what all checks found, and fail on errors
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. One task with C(run_once) serves all servers. It collects the
    findings of M(ascend.pd_rollout.hccn_report), M(ascend.pd_rollout.host_check) and
    M(ascend.pd_rollout.host_reach), compares the servers, prints one table, worst first and grouped, and
    writes C(check.json) and C(check.md).
  - A server without a result is reported as a finding. It does not hide the findings of others.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.plan
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.fail
attributes:
  check_mode:
    support: full
    details: Returns the same result in check mode but writes no file.
  diff_mode:
    support: none
options:
  chips:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.hccn_check) is
      registered, if the chips were checked.
    type: str
  pings:
    description: Names of the variables in which each server's result of M(ascend.pd_rollout.hccn_ping) may be
      registered, such as V(host_check_reached.pings). The first one counts that a server has.
    type: list
    elements: str
    default: []
  mesh:
    description: Name of the variable in which the result of M(ascend.pd_rollout.hccn_mesh) is registered.
    type: str
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.host_check) is
      registered.
    type: str
    required: true
  reached:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.host_reach) is
      registered, if it ran.
    type: str
  weights:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.model_weights) is
      registered, if the weights were checked.
    type: str
  certificate:
    description: Name of the variable in which the result of M(ascend.pd_rollout.front_certificate) is
      registered, if the certificate of the front was checked.
    type: str
  image_source:
    description:
      - C(pd_image_source), from which deployment gets the image. A server without the image is an error only
        if no source for it exists.
    type: str
    default: registry
  image_archive:
    description: Path of the image's archive on the servers, if the image comes from there.
    type: str
    default: ""
  weights_source:
    description:
      - C(pd_weights_source), from which deployment gets the weights. Only with V(present) must they already
        be on the servers.
    type: str
    default: present
  clock_seconds:
    description: By how much the clocks of two servers may differ, in seconds.
    type: float
    default: 2.0
  repairs:
    description: Whether the play continues and starts the deployment. That it is not running is then a hint.
    type: bool
    default: false
  waivers:
    description:
      - Findings that do not count. Each has RV(ignore:code), RV(ignore:place) (a server, or a pattern such as
        V(decode*)), RV(ignore:reason) and RV(ignore:expires) (a date; the finding counts again from the day
        after).
      - A finding about several servers is waived if the pattern matches all of them.
    type: list
    elements: raw
    default: []
  dest:
    description:
      - Directory for C(check.json) and C(check.md), on the controller.
      - Nothing is written without it, and in check mode.
    type: path
"""

EXAMPLES = r"""
- name: Report on all servers
  ascend.pd_rollout.check_report:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts_all }}"
    result: result
    dest: plans/mine
    waivers:
      - code: host-driver-older
        place: decode*
        reason: the vendor has confirmed this driver for our release
        expires: 2027-01-31
  run_once: true
"""

RETURN = r"""
ok:
  description: Whether there is no finding of severity C(error).
  type: bool
  returned: always
  sample: true
findings:
  description: All findings that count, worst first, separately for each server.
  type: list
  elements: dict
  returned: success
  sample: []
waived:
  description: The findings that a waiver covers, with its reason and date.
  type: list
  elements: dict
  returned: success
  sample: []
msg:
  description: The numbers of servers, chips, pings, connections and findings.
  type: str
  returned: always
  sample: "Checks: 3 servers, 48 chips, HCCS, 96 pings, 74 connections: all good"
"""
