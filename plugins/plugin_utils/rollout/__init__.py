# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The planner: from an inventory to everything that will run, before anything runs.

Pure Python. It knows nothing of Ansible: the action plugin ``plan`` hands it groups and variables and gets
a plan, or every finding that stands against one. The way through the modules:

``inventory`` (raw variables to typed ones) → ``topology`` (instances, ranks, ids, ports) → ``ports`` (every
listener of every host) → ``rules`` (findings) → ``launch`` (environment, arguments, scripts) → ``plan``
(the dict) → ``render`` (topology.md, topology.svg).
"""
