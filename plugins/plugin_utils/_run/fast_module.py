# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that are also piped into a server's Python as a plain script.

A module of Ansible needs some 0.3 seconds of CPU on the server until its first own line, to unpack and to
compile Ansible's part of it. Where the whole task takes half a second that counts. The script carries only
what is ours, needs the standard library alone, and gives the same result. Where it cannot run, the module
does: without pipelining, before Ansible knows the server's interpreter, and with `async` or `environment`,
or where the controller's environment has ASCEND_PD_FAST_PATH=0.

Each such module has a small action of its name, rather than one action that plugin_routing in
meta/runtime.yml redirects to: ansible-test (action-plugin-docs) wants a module of the same name for each.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ...module_utils import _findings
from . import server_python
from .deadlines import LONGEST, Answering

SOURCES = Path(_findings.__file__).parent
PACKAGE = "pd_rollout_piped"
MARK = "ascend.pd_rollout result "
# No directory, variable or user of the server decides what is imported.
FLAGS = "-I"
# Of the controller's environment: 0, no or false has the modules themselves run.
SWITCH = "ASCEND_PD_FAST_PATH"

# Its first lines are for every Python 3: one that is too old says so, and that is the result. The texts are
# ASCII: Python 3.9 and older may refuse a long line of their input that has other characters.
_SCRIPT = """\
import json, sys

def tell(result):
    sys.stdout.write("\\n" + {mark!r} + json.dumps(result) + "\\n")

if sys.version_info[:2] < {needed!r}:
    tell({{"failed": True, "changed": False, "python": ".".join(map(str, sys.version_info[:3]))}})
    sys.exit()

import importlib.machinery

class Sources:
    texts = {texts!a}

    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return importlib.machinery.ModuleSpec(name, self, is_package=self.texts[name] is None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(self.texts[name] or "", name, "exec"), module.__dict__)

sys.meta_path.insert(0, Sources())
from {package}.{entry} import {function}
tell({function}(json.loads({options!r})))
"""


def script(entry: str, function: str, options: Mapping[str, Any]) -> str:
    """A script that calls the function of that file of module_utils with the options.

    `entry` is the file's name below module_utils, with dots: `_host.entry`.
    """
    return _SCRIPT.format(
        texts={f"{PACKAGE}.{name}".rstrip("."): text for name, text in sources(entry).items()},
        package=PACKAGE,
        entry=entry,
        function=function,
        options=json.dumps(options),
        mark=MARK,
        needed=server_python.NEEDED,
    )


@cache
def sources(entry: str) -> dict[str, str | None]:
    """The texts of a file of module_utils and of those that it imports, by their names with dots; packages,
    which hold nothing themselves, with None."""
    found: dict[str, str | None] = {"": None}
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        path = SOURCES.joinpath(*name.split("."))
        if path.is_dir():
            found[name] = None
            continue
        found[name] = path.with_suffix(".py").read_text(encoding="utf-8")
        wanted += [package for package in _parents(name) if package]
        wanted += _imported(name, found[name] or "")
    return found


def _parents(name: str) -> Iterator[str]:
    """Yield the packages around a module, nearest first; the last is module_utils itself, the empty name."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _imported(name: str, text: str) -> Iterator[str]:
    """Yield what a module of module_utils imports from module_utils; these imports are all relative."""
    around = list(_parents(name))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = ".".join(part for part in (around[node.level - 1], node.module) if part)
            if (SOURCES.joinpath(*package.split("."))).is_dir():
                yield from (f"{package}.{alias.name}".lstrip(".") for alias in node.names)
            else:
                yield package


def result_in(output: str) -> dict[str, Any] | None:
    """Return the result in the script's output; None if it did not get that far."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found = json.loads(line[len(MARK) :])
            return found if isinstance(found, dict) else None
    return None


class PipedModule(Answering, ActionBase):
    """Base of the action plugins of such modules."""

    #: The file of module_utils with the module's work, its function, and the module's arguments.
    ENTRY: str
    FUNCTION: str
    ARGUMENTS: Mapping[str, Any]
    #: Returns the error for arguments that must not be acted on, if that is known without the server.
    REFUSED: Callable[[Mapping[str, Any]], _findings.RolloutError | None] | None = None

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        error = self.REFUSED(self._task.args) if self.REFUSED else None
        if error is not None:
            return {**result, **error.failure()}
        with self._within(LONGEST, f"{self._task.action} ran", lost=False):
            found = self._piped(task_vars)
            if found is None:
                found = self._by_module(task_vars)
        return {**result, **found}

    def _by_module(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the module's result, reworded if the server's Python is too old."""
        arguments = {**self._task.args, **self._own_arguments()}
        found: dict[str, Any] = self._execute_module(
            module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
        )
        path = self._python(task_vars) or (found.get("ansible_facts") or {}).get(
            "discovered_interpreter_python", "its usual place"
        )
        return server_python.reworded(found, str(path)) or found

    def _own_arguments(self) -> dict[str, Any]:
        """Return arguments that are not options of the task, such as secrets that only servers may know."""
        return {}

    def _piped(self, task_vars: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the script's result; None if the module must run instead, or must report the failure."""
        python = self._python(task_vars)
        if python is None or self._task.async_val or any(self._task.environment or ()):
            return None
        if not boolean(os.environ.get(SWITCH) or True, strict=False):
            return None
        if not self._is_pipelining_enabled("new"):
            return None
        # ~ and variables in paths are the server's.
        spec = {
            name: {**one, "type": "str"} if one.get("type") == "path" else one
            for name, one in self.ARGUMENTS.items()
        }
        _, options = self.validate_argument_spec(spec)
        options = {**options, **self._own_arguments()}
        answer = self._low_level_execute_command(
            f"{shlex.quote(python)} {FLAGS} -",
            in_data=script(
                self.ENTRY, self.FUNCTION, {**options, "_check_mode": self._task.check_mode}
            ).encode(),
        )
        found = result_in(answer["stdout"]) if answer["rc"] == 0 else None
        if found is not None and "python" in found:
            return {**found, "msg": server_python.too_old(found["python"], python)}
        return found

    def _python(self, task_vars: Mapping[str, Any]) -> str | None:
        """Return the server's interpreter if the inventory sets it or an earlier task has discovered it."""
        if self._task.delegate_to:
            return None
        named = self._templar.template(task_vars.get("ansible_python_interpreter") or "")
        if named and not str(named).startswith("auto"):
            return str(named)
        found = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python")
        return str(found) if found else None
