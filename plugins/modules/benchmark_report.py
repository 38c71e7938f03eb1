#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_report
short_description: Report what a benchmark has measured, beside the reference and the last result
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. It reads the result files of C(vllm bench serve), judges every
    request, puts the repeats together, prints one table, and writes C(report.md), C(summary.json),
    C(ttft.svg) and C(ttft.png) beside them.
  - A request counts as failed when its answer is empty (the proxy says 200 when a decoder fails), is an
    error, breaks off before its last token, or has no text. Failures are counted by kind.
  - Without matplotlib there is no plot, and a message says how to get it.
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
    description: What P(ascend.pd_rollout.benchmark_runs#filter) made.
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
      - The folders beside it are the cluster's earlier results.
    type: path
    required: true
  outcome:
    description: What M(ascend.pd_rollout.measurement_wait) returned.
    type: dict
    required: true
  reference:
    description: What to compare with, C(ttft) in seconds, for C(input_len) and C(prompts).
    type: dict
    default: {}
  max_failed:
    description: Failed requests that are put up with.
    type: int
    default: 0
  max_ttft:
    description:
      - Mean TTFT in seconds above which the task fails, at any number of requests at a time.
      - Without it none does.
    type: float
"""

EXAMPLES = r"""
- name: Report on the benchmark
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
  description: Requests that failed, of all runs.
  returned: when there is a result
  type: int
  sample: 0
files:
  description: What was written.
  returned: when there is a result
  type: list
  elements: str
msg:
  description: The result in a sentence, or all that is wrong.
  returned: always
  type: str
"""
