#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: measurement_wait
short_description: Wait for a measurement, and show how far it is
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(measurement).
  - An action that asks the server again and again by M(ascend.pd_rollout.measurement_info), and prints a
    line when there is progress.
  - It does not fail when the commands do, so that what they have measured until then can be fetched first.
    It returns RV(ok) and what to say.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Waits for nothing in check mode.
  diff_mode:
    support: none
options:
  title:
    description: What is run, in a word.
    type: str
    default: measurement
  directory:
    description: The measurement's folder on the server.
    type: path
    required: true
  container:
    description: Name of its container.
    type: str
    required: true
  timeout:
    description: Seconds until it counts as failed.
    type: int
    default: 14400
"""

EXAMPLES = r"""
- name: Wait until the benchmark has ended
  ascend.pd_rollout.measurement_wait:
    title: benchmark
    directory: /etc/pd_rollout/pd-benchmark
    container: pd-benchmark
  register: outcome
"""

RETURN = r"""
ok:
  description: Whether all commands ended well.
  returned: success
  type: bool
  sample: true
exit_code:
  description: How they ended.
  returned: when it is known
  type: int
  sample: 0
seconds:
  description: How long they were awaited.
  returned: success
  type: float
  sample: 431.2
msg:
  description: What happened, with the last lines of the log where they did not end well.
  returned: success
  type: str
"""
