# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Base classes of this collection's action plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

from .fast_module import FastPath


class ControllerAction(ActionBase):
    """An action that does its work on the controller."""

    #: The specification of the task's options; the module of the same name documents them.
    ARGUMENTS: ClassVar[Mapping[str, Any]]

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(self.ARGUMENTS)
        return {**result, "changed": False, **self.work(options, task_vars)}

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result, with ``failed`` and ``msg`` if it fails, and with ``changed``.

        options: the validated options.
        task_vars: variables of the host for which the task runs.
        """
        raise NotImplementedError


class ServerAction(FastPath, ControllerAction):
    """An action that calls modules on the server, with a time limit for their answers."""

    _requires_connection = True

    def _copied(self, source: Path, destination: str, mode: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Copy a file of the controller to the server; return the result of Ansible's own action.

        mode: as that of M(ansible.builtin.copy).
        """
        task = self._task.copy()
        task.args = {"src": str(source), "dest": destination, "mode": mode}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        copied: dict[str, Any] = action.run(task_vars=task_vars)
        return copied
