# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module guard, which is documented in plugins/modules."""

from __future__ import annotations

import base64
from typing import Any

from ansible.errors import AnsibleActionFail

from ..module_utils._serving.guard_unit import ARGUMENTS, START_TIMEOUT
from ..module_utils._systemd import TIMEOUT
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction
from ..plugin_utils._serving import guard_program
from ..plugin_utils.rollout.values import BadValue


class ActionModule(PipedModule):
    """Does on the server what the module does, with the program and the configuration from here."""

    WORK = ServerFunction("guard", "_serving.guard_unit", "result", ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        guard = self._task.args.get("guard")
        if guard:
            self._task.args = {**self._task.args, **_made(guard, self._task.args.get("settings") or {})}
        return super().run(tmp, task_vars)

    def _own_seconds(self) -> float:
        # systemd's commands, and two waits for the unit.
        return 2 * START_TIMEOUT + 8 * TIMEOUT


def _made(guard: Any, settings: Any) -> dict[str, Any]:
    """Return the arguments of the module that follow from those of the task. Raises AnsibleActionFail."""
    try:
        config = guard_program.config(guard, settings)
    except BadValue as error:
        raise AnsibleActionFail(f"guard: expected {error.expected}, not {error.seen!r}") from None
    program = base64.b64encode(guard_program.program()).decode("ascii")
    # A server's logs contain the arguments of modules.
    return {"guard": guard_program.reduced(guard), "settings": {}, "config": config, "program": program}
