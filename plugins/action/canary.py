# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module canary, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._serving.canary import ARGUMENTS, DECODERS_AT_ONCE, MEASUREMENTS
from ..module_utils._serving.canary_prompts import PROMPTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction

SIDES = ("prefillers", "decoders")


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("canary", "_serving.canary", "result", ARGUMENTS)

    def _own_seconds(self) -> float:
        # At worst the last request of each pair gets no answer, and the pairs are asked one by one.
        options = self.WORK.options(self._task.args)
        prefillers, decoders = (sum(len(instance["apis"]) for instance in options[side]) for side in SIDES)
        asked = 1 + (int(options["attempts"]) + MEASUREMENTS) * max(1, prefillers)
        turns = 1 + decoders // DECODERS_AT_ONCE
        prompts = len(options["prompts"] or PROMPTS)
        return float(options["timeout"]) * prompts * asked * turns
