#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: accuracy_report
short_description: Judge what AISBench has found
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. It reads the newest run below a folder, C(summary/summary_*.csv)
    with C(predictions) beside it, prints one table, writes C(report.md) and C(accuracy.json), and fails when
    a score is missing or below its reference by more than the tolerance, or when a question has no answer.
  - A recorded run can be judged as well as a new one.
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
    description: Whose accuracy it is, for the title.
    type: str
    required: true
  datasets:
    description:
      - What was asked for, each with C(name) as in AISBench's summary, C(reference) in percent, or none to
        only show the score, and C(tolerance) if it has its own.
    type: list
    elements: dict
    required: true
  directory:
    description: Folder of the fetched run, on the controller.
    type: path
    required: true
  outcome:
    description: What M(ascend.pd_rollout.measurement_wait) returned, if it was run just now.
    type: dict
    default: {ok: true}
  tolerance:
    description: How far below its reference a score may be, in percent points.
    type: float
    default: 3.4
"""

EXAMPLES = r"""
- name: Judge a run that was recorded
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
  description: The result in a sentence, or all that is wrong.
  returned: always
  type: str
"""
