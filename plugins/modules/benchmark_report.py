#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_report
short_description: Report the results of a benchmark, with the reference and the previous result
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. It reads the result files of C(vllm bench serve), classifies every
    request, combines the repeats, prints one table, and writes C(report.md), C(summary.json), C(ttft.svg) and
    C(ttft.png) beside them.
  - A request counts as failed if its answer is empty (the proxy answers 200 when a decoder fails), is an
    error, breaks off before its last token, or has no text. Failures are counted by kind.
  - Without matplotlib there is no plot, and a message explains how to install it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.plan
attributes:
  check_mode:
    support: full
    details: Does nothing in check mode.
  diff_mode:
    support: none
options:
  runs:
    description: The runs from P(ascend.pd_rollout.benchmark_runs#filter).
    type: list
    elements: dict
    required: true
  case:
    description: The load, with C(input_len), C(output_len), C(prompts) and C(rate).
    type: dict
    required: true
  directory:
    description:
      - Folder of the result files, on the controller.
      - The folders beside it hold the cluster's earlier results.
    type: path
    required: true
  outcome:
    description: The result of M(ascend.pd_rollout.measurement_wait).
    type: dict
    required: true
  reference:
    description: Reference to compare with, C(ttft) in seconds for C(input_len) and C(prompts).
    type: dict
    default: {}
  max_failed:
    description: Number of failed requests that is accepted.
    type: int
    default: 0
  max_ttft:
    description:
      - Mean TTFT in seconds above which the task fails, at any concurrency.
      - Without it there is no limit.
    type: float
"""

EXAMPLES = r"""
- name: Report the results of the benchmark
  ascend.pd_rollout.benchmark_report:
    plan: "{{ pd_plan }}"
    runs: "{{ runs }}"
    case: {input_len: 131072, output_len: 128, prompts: 20, rate: inf}
    directory: plans/mine/benchmark/20260101-120000
    outcome: "{{ measurement_outcome }}"
    reference: {ttft: 20.7, input_len: 131072, prompts: 20}
"""

RETURN = r"""
summary:
  description: The figures, as in C(summary.json).
  returned: when there is a result
  type: dict
failed_requests:
  description: Number of failed requests in all runs.
  returned: when there is a result
  type: int
  sample: 0
files:
  description: The files that were written.
  returned: when there is a result
  type: list
  elements: str
msg:
  description: The result in a sentence, or everything that is wrong.
  returned: always
  type: str
"""
