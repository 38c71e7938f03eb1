# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the run that a worker works for is still there."""

from __future__ import annotations

import os

from ansible.errors import AnsibleError


class ParentRun:
    """The run as it is when a wait begins. Workers outlive a run that is killed.

    One that goes on asking would tell the server that somebody waits, so what ends by itself when nobody does
    would go on, too.
    """

    def __init__(self) -> None:
        self._pid = os.getppid()

    def check(self, wait: str) -> None:
        """Raise AnsibleError if the run has ended. `wait`: what was awaited, for the message."""
        if os.getppid() != self._pid:
            raise AnsibleError(f"The run that waited for {wait} has been killed.")
