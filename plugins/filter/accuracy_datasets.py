# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter accuracy_datasets: a thin cover of plugin_utils/accuracy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: accuracy_datasets
short_description: What is known of data sets for AISBench
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Turns names into AISBench's configuration, the folder of the data, and the reference. C(aime2024),
    C(aime2025), C(gsm8k), C(gpqa) and C(math500) are known. A mapping gives others, or replaces what
    is known.
options:
  _input:
    description: Names, or mappings with C(name), C(config), C(folder), C(reference), C(tolerance), C(url).
    type: list
    elements: raw
    required: true
"""

EXAMPLES = r"""
- name: Show what stands behind a name
  ansible.builtin.debug:
    msg: "{{ ['aime2024', {'name': 'gsm8k', 'reference': 95.0}] | ascend.pd_rollout.accuracy_datasets }}"
  # => [{"key": "aime2024", "name": "aime2024", "config": "aime2024_gen_0_shot_chat_prompt.py",
  #      "folder": "aime", "reference": 86.67}, …]
"""

RETURN = r"""
_value:
  description: The data sets. C(name) is what AISBench's summary calls it, C(key) what it was asked for as.
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
