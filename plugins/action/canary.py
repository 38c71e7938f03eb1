# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module canary, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._findings import Finding, render_text
from ..module_utils._serving.canary import ARGUMENTS, DECODERS_AT_ONCE, MEASUREMENTS
from ..module_utils._serving.canary_prompts import PROMPTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction
from ..plugin_utils._run.screen import COLOURS, show
from ..plugin_utils._serving.canary import table

SIDES = ("prefillers", "decoders")


class ActionModule(PipedModule):
    """Runs the module's work on the server, and shows what each pair answered."""

    WORK = ServerFunction("canary", "_serving.canary", "result", ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if result.get("pairs") and self.WORK.options(self._task.args)["show"]:
            show("\n".join(["", *table(result["pairs"]), ""]))
            # Errors are in the message with which the task fails.
            if not result.get("failed"):
                found = [Finding.from_dict(finding) for finding in result["findings"]]
                for finding in found:
                    show("\n".join(render_text([finding])), color=COLOURS[finding.severity])
        return result

    def _own_seconds(self) -> float:
        # At worst the last request of each pair gets no answer, and the pairs are asked one by one.
        options = self.WORK.options(self._task.args)
        prefillers, decoders = (sum(len(instance["apis"]) for instance in options[side]) for side in SIDES)
        asked = 1 + (int(options["attempts"]) + MEASUREMENTS) * max(1, prefillers)
        turns = 1 + decoders // DECODERS_AT_ONCE
        prompts = len(options["prompts"] or PROMPTS)
        return float(options["timeout"]) * prompts * asked * turns
