#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: accuracy_report
short_description: Evaluate the results of AISBench
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. It reads the newest run below a folder, C(summary/summary_*.csv)
    with C(predictions) beside it, prints one table, writes C(report.md) and C(accuracy.json), and fails if
    a score is missing or below its reference by more than the tolerance, or if a question has no answer.
  - A recorded run can be evaluated as well as a new one.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
attributes:
  check_mode:
    support: full
    details: Does nothing in check mode.
  diff_mode:
    support: none
options:
  cluster:
    description: Name of the cluster, for the title.
    type: str
    required: true
  datasets:
    description:
      - The data sets, each with C(name) as in AISBench's summary, C(reference) in percent (without it the
        score is only shown), and C(tolerance) to override O(tolerance).
    type: list
    elements: dict
    required: true
  directory:
    description: Folder of the fetched run, on the controller.
    type: path
    required: true
  outcome:
    description: The result of M(ascend.pd_rollout.measurement_wait) for a new run.
    type: dict
    default: {ok: true}
  tolerance:
    description: How far a score may be below its reference, in percentage points.
    type: float
    default: 3.4
"""

EXAMPLES = r"""
- name: Evaluate a recorded run
  ascend.pd_rollout.accuracy_report:
    cluster: mine
    directory: outputs/default
    datasets:
      - {name: aime2024, reference: 86.67}
"""

RETURN = r"""
verdicts:
  description: One for each data set.
  returned: always
  type: list
  elements: dict
  sample: [{dataset: aime2024, score: 86.67, reference: 86.67, tolerance: 3.4, failed: 0, total: 30}]
msg:
  description: The result in a sentence, or everything that is wrong.
  returned: always
  type: str
"""
