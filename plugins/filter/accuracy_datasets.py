# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter accuracy_datasets: a thin wrapper around plugin_utils/_benchmark/accuracy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: accuracy_datasets
short_description: Settings of data sets for AISBench
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Looks up AISBench's configuration, the folder of the data, and the reference for each name. C(aime2024),
    C(aime2025), C(gsm8k), C(gpqa) and C(math500) are known. A mapping defines another data set, or overrides
    the settings of a known one.
options:
  _input:
    description: Names, or mappings with C(name), C(config), C(folder), C(reference), C(tolerance), C(url).
    type: list
    elements: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the settings of two data sets
  ansible.builtin.debug:
    msg: "{{ ['aime2024', {'name': 'gsm8k', 'reference': 95.0}] | ascend.pd_rollout.accuracy_datasets }}"
  # => [{"key": "aime2024", "name": "aime2024", "config": "aime2024_gen_0_shot_chat_prompt.py",
  #      "folder": "aime", "reference": 86.67}, …]
"""

RETURN = r"""
_value:
  description: The data sets. C(name) is the name in AISBench's summary, C(key) the name that was passed.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils._benchmark.accuracy import datasets_of


class FilterModule:
    """Data sets for AISBench."""

    def filters(self) -> dict[str, Any]:
        return {"accuracy_datasets": accuracy_datasets}


def accuracy_datasets(wanted: Any) -> list[dict[str, Any]]:
    if isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, (list, tuple)):
        raise AnsibleFilterError("ascend.pd_rollout.accuracy_datasets: expected a list of names or mappings")
    found, problems = datasets_of(wanted)
    if problems:
        text = "".join(f"\n- {problem}" for problem in problems)
        raise AnsibleFilterError(f"These data sets cannot be evaluated:{text}")
    return found
