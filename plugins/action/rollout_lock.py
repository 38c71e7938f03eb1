# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Takes a server's lock in the name of this run; documented in plugins/modules/rollout_lock.py."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ..module_utils._findings import text_of
from ..module_utils._lock import ARGUMENTS, held_beside
from ..plugin_utils._run import lock_guard, lock_owner
from ..plugin_utils._run.action import ServerAction
from ..plugin_utils._run.deadlines import SOON
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.screen import show

display = Display()

WORK = ServerFunction("rollout_lock", "_lock", "change", ARGUMENTS)


class ActionModule(ServerAction):
    """Asks M(ascend.pd_rollout.rollout_lock), and again if the holder turns out to be gone."""

    ARGUMENTS = ARGUMENTS

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        # Tasks run in workers; the run itself is their parent and lives until the last of them.
        owner = lock_owner.describe(os.getppid(), options["deployment"])
        arguments = {"state": options["state"], "path": options["path"], "owner": owner}
        host = task_vars["inventory_hostname"]
        # A run may have two locks on a server, that of a rollout and that of a measurement.
        guard = f"{host}.{Path(options['path']).name}.guard"
        mark = Path(C.DEFAULT_LOCAL_TMP) / "pd_rollout_lock" / guard
        if options["state"] == "absent" and not self._task.check_mode:
            lock_guard.stop(mark)
        answer = self._ask(arguments, task_vars)
        holder = answer.get("holder")
        if answer.get("failed") or answer.get("unreachable"):
            return answer
        if not holder:
            self._keep(mark, owner, options)
            return answer
        why = lock_owner.left_behind(holder, options["max_age"], options["max_silence"])
        if why is None and options["force"]:
            why = "deploy_lock_force is set"
        if why is None:
            return {**answer, **_refused(holder, host, options)}
        taken = f"{host}: the lock of {lock_owner.who(holder)} is taken over: {why}."
        show(taken)
        answer = self._ask({**arguments, "replace": holder.get("run", "")}, task_vars)
        if answer.get("holder"):
            # Another run was quicker.
            answer.update(_refused(answer["holder"], host, options))
        elif not answer.get("failed"):
            self._keep(mark, owner, options)
        return {"taken_over": taken, **answer}

    def _keep(self, mark: Path, owner: dict[str, Any], options: dict[str, Any]) -> None:
        """Have somebody who gives the lock back when this run cannot."""
        if options["state"] == "absent" or self._task.check_mode or mark.exists():
            return
        # As the module holds it while it changes the lock, and only if the lock is this run's.
        held, path = (shlex.quote(one) for one in (held_beside(options["path"]), options["path"]))
        mine = f"grep -qsF {shlex.quote(owner['run'])} {path}"

        def on_server(deed: str) -> int:
            # Its own words go nowhere: the run that showed them is over, or is busy with something else.
            display.verbosity = 0
            command = f"umask 077; flock {held} sh -c {shlex.quote(f'{mine} && {deed}')}"
            # The guard has nobody who would end it.
            with self._within(lock_guard.ANSWER, "the lock was touched", lost=False):
                code = int(self._low_level_execute_command(command)["rc"])
            # 1: it is another's; 2: there is none.
            if code > 2:
                raise AnsibleError(f"{command} ended with {code}")
            return code

        lock_guard.start(
            owner["pid"],
            owner["started"],
            mark,
            beat=lambda: on_server(f"touch -c {path}") == 0,
            give_back=lambda: on_server(f"rm -f {path}"),
        )

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        with self._within(SOON, "its lock was asked for", lost=False):
            return self._call(WORK, arguments, task_vars)


def _refused(holder: dict[str, Any], host: str, options: dict[str, Any]) -> dict[str, Any]:
    """The result of a task whose lock another run holds."""
    finding = lock_owner.refusal(holder, host, options["path"], options["max_silence"])
    return {"failed": True, "findings": [finding.to_dict()], "msg": text_of([finding])}
