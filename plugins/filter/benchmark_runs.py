# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter benchmark_runs: a thin wrapper around plugin_utils/_benchmark/runs.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_runs
short_description: The commands that measure a deployment
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Creates C(vllm bench serve) commands against the proxy, one for each concurrency and each repeat.
  - Settings that the engines would refuse (a length beyond C(--max-model-len), a rate of 0) are errors, which
    are reported all at once.
positional: url, folder
options:
  _input:
    description: The plan, from the fact C(pd_plan) or the file C(plan.json).
    type: dict
    required: true
  url:
    description: Base URL of the proxy.
    type: str
    required: true
  folder:
    description: Folder for the result files, as seen by the command.
    type: str
    required: true
  input_len:
    description: Tokens per prompt.
    type: int
    default: 131072
  output_len:
    description: Tokens per answer.
    type: int
    default: 128
  prompts:
    description: Requests per run.
    type: int
    default: 20
  rate:
    description: Requests per second, V(inf) to send without a pause.
    type: str
    default: inf
  concurrency:
    description: Numbers of concurrent requests, one run for each; V(0) sets no limit.
    type: list
    elements: int
    default: [1]
  repeats:
    description: How often each run is repeated.
    type: int
    default: 1
  warmups:
    description: Warm-up requests before each run, which do not count.
    type: int
    default: 1
  seed:
    description: Seed of the first run. Each run uses a different seed.
    type: int
    default: 0
  options:
    description: Further long options of C(vllm bench serve), by name without dashes; V(true) for a flag.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the commands
  ansible.builtin.debug:
    msg: "{{ pd_plan | ascend.pd_rollout.benchmark_runs('http://10.0.0.11:8005', '/r', concurrency=[1, 4]) }}"
  # => [{"concurrency": 1, "repeat": 1, "file": "concurrency-1-1.json", "argv": ["vllm", "bench", "serve", …],
  #      "commands": ["echo '== run 1 of 2 (1 at a time)'", "vllm bench serve …"]}, …]
"""

RETURN = r"""
_value:
  description: The runs, in their order.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils._benchmark import runs
from ..plugin_utils._filters import guarded, whole_plan


class FilterModule:
    """The commands of a benchmark."""

    def filters(self) -> dict[str, Any]:
        return {"benchmark_runs": benchmark_runs}


@guarded
def benchmark_runs(
    plan: Any,
    url: Any,
    folder: Any,
    concurrency: Any = (1,),
    repeats: Any = 1,
    options: Any = None,
    **case: Any,
) -> list[dict[str, Any]]:
    if not isinstance(options or {}, Mapping):
        raise AnsibleFilterError(
            "ascend.pd_rollout.benchmark_runs: options must be a mapping of option names"
        )
    try:
        made = runs.make_runs(
            whole_plan(plan),
            read_case(case),
            [int(number) for number in concurrency],
            int(repeats),
            str(folder),
            str(url),
            options,
        )
    except runs.BadBenchmark as error:
        text = "".join(f"\n- {problem}" for problem in error.problems)
        raise AnsibleFilterError(f"This benchmark cannot run:{text}") from None
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"ascend.pd_rollout.benchmark_runs: {error}") from None
    return [run.to_dict(number, len(made)) for number, run in enumerate(made, 1)]


def read_case(given: Mapping[str, Any]) -> runs.Case:
    """Return the case for values from Ansible, where numbers may be text. Raises TypeError, ValueError."""
    known = runs.Case.__dataclass_fields__
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    values: dict[str, Any] = {name: str(v) if name == "rate" else int(v) for name, v in given.items()}
    return runs.Case(**values)
