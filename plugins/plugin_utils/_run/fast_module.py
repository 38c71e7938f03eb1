# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that are also piped into a server's Python as a plain script.

A module of Ansible needs some 0.3 seconds of CPU on the server until its first own line, to unpack and to
compile Ansible's part of it, and 0.1 on the controller. Where the whole task takes half a second that counts.
The script carries only what is ours, needs the standard library alone, and gives the same result. Where it
cannot run, the module does: without pipelining, for another host (`delegate_to`) and with `async` or
`environment`, or where the controller's environment has ASCEND_PD_FAST_PATH=0.

Each such module has a small action of its name, rather than one action that plugin_routing in
meta/runtime.yml redirects to: ansible-test (action-plugin-docs) wants a module of the same name for each.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.executor.interpreter_discovery import discover_interpreter
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ...module_utils._findings import RolloutError
from . import server_python
from .deadlines import LONGEST, Answering
from .fast_script import FLAGS, prepare, result_in, script

# Of the controller's environment: 0, no or false has the modules themselves run.
SWITCH = "ASCEND_PD_FAST_PATH"


@dataclass(frozen=True)
class ServerFunction:
    """What a module does on a server, as a function of module_utils.

    module: the module's short name.
    entry, function: the file below module_utils, with dots, and its function, which takes the options.
    arguments: the module's argument specification.
    """

    module: str
    entry: str
    function: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        # Actions are loaded in Ansible's main process, so that its workers need not read the files again.
        prepare(self.entry)

    @property
    def paths(self) -> list[str]:
        """The options that are paths or lists of them, whose ~ and variables are the server's."""
        return [
            name
            for name, argument in self.arguments.items()
            if "path" in (argument.get("type"), argument.get("elements"))
        ]

    def options(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with their defaults. Raises AnsibleActionFail for wrong ones."""
        result = ArgumentSpecValidator(_paths_as_text(self.arguments)).validate(dict(arguments))
        if result.error_messages:
            raise AnsibleActionFail(f"{self.module}: {result.errors.msg}")
        options: dict[str, Any] = result.validated_parameters
        return options


def _paths_as_text(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A specification with which paths are validated, but not expanded."""
    return {
        name: {
            key: _paths_as_text(value) if key == "options" else "str" if value == "path" else value
            for key, value in argument.items()
        }
        for name, argument in arguments.items()
    }


class FastPath(Answering, ActionBase):
    """Base of the actions that have such a function do its work on the server."""

    #: The interpreter of the server, where this action is the first that looks for it.
    _own_discovery: str | None = None

    def _call(
        self, work: ServerFunction, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the module's result, from the script or from the module itself.

        work: what the module does.
        arguments: of the module.
        task_vars: of the action.
        """
        found = self._piped(work, arguments, task_vars)
        return self._by_module(work, arguments, task_vars) if found is None else found

    def _by_module(
        self, work: ServerFunction, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the module's result, reworded if the server's Python is too old."""
        found: dict[str, Any] = self._execute_module(
            module_name=f"ascend.pd_rollout.{work.module}",
            module_args=dict(arguments),
            task_vars=task_vars,
            wrap_async=self._task.async_val,
        )
        path = self._python(task_vars) or (found.get("ansible_facts") or {}).get(
            "discovered_interpreter_python", "its usual place"
        )
        return server_python.reworded(found, str(path)) or found

    def _piped(
        self, work: ServerFunction, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return the script's result; None if the module must run instead, or must report the failure."""
        if not boolean(os.environ.get(SWITCH) or True, strict=False):
            return None
        if self._task.delegate_to or self._task.async_val or any(self._task.environment or ()):
            return None
        if not self._is_pipelining_enabled("new"):
            return None
        options = {**work.options(arguments), "_check_mode": self._task.check_mode}
        text = script(work.entry, work.function, options, work.paths)
        python = self._python(task_vars) or self._discovered(task_vars)
        if python is None:
            return None
        answer = self._low_level_execute_command(f"{shlex.quote(python)} {FLAGS} -", in_data=text.encode())
        found = result_in(answer["stdout"]) if answer["rc"] == 0 else None
        if found is None:
            return None
        if self._own_discovery:
            found["ansible_facts"] = {"discovered_interpreter_python": self._own_discovery}
        if "python" in found:
            return {**found, "msg": server_python.too_old(found["python"], python)}
        return found

    def _python(self, task_vars: Mapping[str, Any]) -> str | None:
        """Return the server's interpreter if the user has set it or an earlier task has discovered it."""
        named = C.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars) or "auto"
        if not named.startswith("auto"):
            named = self._templar.template(named) or "auto"
        if not str(named).startswith("auto"):
            return str(named)
        found = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python")
        return str(found) if found else None

    def _discovered(self, task_vars: Mapping[str, Any]) -> str | None:
        """Return the interpreter that Ansible finds on the server; later tasks are told as by a module."""
        if self._own_discovery is None:
            mode = C.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars) or "auto"
            try:
                self._own_discovery = str(discover_interpreter(self, "python", mode, task_vars))
            except AnsibleConnectionFailure:
                raise
            except Exception:  # The module tries again, and reports what is wrong.
                return None
        return self._own_discovery


class PipedModule(FastPath):
    """Base of the action plugins that do nothing but this."""

    WORK: ClassVar[ServerFunction]

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    @staticmethod
    def refused(_arguments: Mapping[str, Any], /) -> RolloutError | None:
        """Return the error for arguments that must not be acted on, if that is known without the server."""
        return None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        error = self.refused(self._task.args)
        if error is not None:
            return {**result, **error.failure()}
        with self._within(LONGEST + self._own_seconds(), f"{self._task.action} ran", lost=False):
            found = self._call(self.WORK, {**self._task.args, **self._own_arguments()}, task_vars)
        return {**result, **found}

    def _own_seconds(self) -> float:
        """Return the seconds that the work may take with these arguments, beyond those of any call.

        Raises AnsibleActionFail for wrong ones.
        """
        return 0.0

    def _own_arguments(self) -> dict[str, Any]:
        """Return arguments that the task cannot set, such as secrets that only servers may know."""
        return {}
