# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The planner: from an inventory to everything that will run, before anything runs.

Pure Python without Ansible: the action plugin ``plan`` passes it groups and variables, and receives a plan
or all findings that prevent one. The data passes through the modules in this order:

``inventory`` (raw variables to typed ones) → ``topology`` (instances, ranks, ids, ports) → ``ports`` (every
listener of every host) → ``rules`` (findings) → ``launch`` (environment, arguments, scripts) → ``plan``
(the dict) → ``render`` (topology.md, topology.svg).
"""
