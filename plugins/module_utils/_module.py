# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A module of Ansible around a function. Imports Ansible, so nothing else in module_utils imports this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def run(
    arguments: Mapping[str, Any], work: Callable[[dict[str, Any]], dict[str, Any]], check_mode: bool = True
) -> None:
    """Reads a module's options, does its work and ends the process with its result.

    `work` gets the options, with `_check_mode` among them, and returns the result, with `failed` where the
    task fails. `check_mode`: whether the module supports it; one that does not is skipped in check mode.
    """
    module = AnsibleModule(argument_spec=dict(arguments), supports_check_mode=check_mode)
    result = work({**module.params, "_check_mode": module.check_mode})
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)
