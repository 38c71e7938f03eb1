# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_push; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils._transfer.status import FETCHING, TransferStatus
from ..module_utils._transfer.weights_files import manifest_of
from ..plugin_utils._distribution.progress import progress
from ..plugin_utils._run.action import ServerAction
from ..plugin_utils._run.deadlines import LONGEST
from ..plugin_utils._run.parent import ParentRun
from ..plugin_utils._run.screen import show

# Seconds between two lines of progress.
SHOW_EVERY = 5.0
# Bytes a second: what goes on more slowly counts as hung. The file is read here and there, too.
SLOWEST = 1e5


class ActionModule(ServerAction):
    """Copies one by one with M(ansible.builtin.copy): each is compared by hash and comes in one step."""

    TRANSFERS_FILES = True

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "source": {"type": "str", "required": True},
        "destination": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        source = Path(options["source"]).expanduser()
        files = manifest_of(source)
        host = task_vars["inventory_hostname"]
        total, done, sent = sum(state.size for state in files.values()), 0, 0
        begun = shown = time.monotonic()
        run = ParentRun()
        for name, state in files.items():
            run.check(f"the weights of {host}")
            with self._within(LONGEST + state.size / SLOWEST, f"{name} was copied there"):
                answer = self._copy(source / name, f"{options['destination']}/{name}", task_vars)
            if answer.get("failed"):
                place = f"{host}: {options['destination']}/{name}"
                return {
                    "failed": True,
                    "msg": f"{place} could not be written after {done / 1e6:.1f} of {total / 1e6:.1f} MB: "
                    f"{answer.get('msg')}. Files that have come stay; run again when the cause is gone.",
                }
            done += state.size
            sent += state.size if answer.get("changed") else 0
            now = time.monotonic()
            if now - shown > SHOW_EVERY or done == total:
                rate = sent / (now - begun) if now > begun else 0.0
                status = TransferStatus(FETCHING, "the controller", done, total, rate)
                show(f"{host} weights: {progress(status)}")
                shown = now
        return {"changed": sent > 0, "bytes": total, "sent": sent}

    def _copy(self, source: Path, destination: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        folder = destination.rpartition("/")[0]
        if "/" in destination[len(self._task.args["destination"]) + 1 :]:
            made: dict[str, Any] = self._execute_module(
                module_name="ansible.builtin.file",
                module_args={"path": folder, "state": "directory", "mode": "0755"},
                task_vars=task_vars,
            )
            if made.get("failed"):
                return made
        return self._copied(source, destination, "preserve", task_vars)
