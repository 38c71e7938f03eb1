# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What every action does that waits for something on a server: ask again and again, and show the progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail

from .action import ServerAction
from .deadlines import SOON
from .fast_module import ServerFunction
from .parent import ParentRun
from .screen import show

# Seconds that a server holds an answer back while nothing new has happened there.
HOLD = 2.0


class Polling(ServerAction):
    """Base of action plugins that poll a module until what they wait for has ended."""

    def _poll(
        self,
        work: ServerFunction,
        arguments: Mapping[str, Any],
        *,
        about: str,
        answers: str,
        task_vars: Mapping[str, Any],
        seconds: float = SOON,
    ) -> dict[str, Any]:
        """Ask the server once.

        work: the module that is asked.
        arguments: of that module.
        about: what is awaited, as the user reads it: `the image on decode1`.
        answers: the name that an answer carries; one without it is none.
        task_vars: of the action.
        seconds: after which the server counts as unreachable.

        Returns the module's result. Raises AnsibleActionFail, with the module's findings, where that failed;
        AnsibleError where the run that this worker belongs to has been killed; AnsibleConnectionFailure where
        the server does not answer.
        """
        if not hasattr(self, "_parent_run"):
            self._parent_run = ParentRun()
        self._parent_run.check(about)
        with self._within(seconds, f"waiting for {about}"):
            answer = self._call(work, arguments, task_vars)
        if answer.get("failed") or answers not in answer:
            why = answer.get("msg") or f"no report about {about}: {answer}"
            raise AnsibleActionFail(why, result={"findings": answer.get("findings") or []})
        return answer


class ProgressLine:
    """The line of one subject on the screen: printed when its phase changes, else only now and then."""

    def __init__(self, subject: str, every: float) -> None:
        """subject: how the line begins, `decode1 image`. every: seconds between two lines of one phase."""
        self._subject, self._every = subject, every
        self._phase: object = None
        self._text = ""
        self._at = time.monotonic()

    def update(self, text: str, phase: object = None, *, note: str = "", final: bool = False) -> None:
        """Print the text if it is due.

        text: what has been reached.
        phase: what it belongs to; with another one the line is due at once.
        note: printed behind the text; it does not make a line a new one.
        final: whether this is the last one, which is due unless the same was printed before.
        """
        now = time.monotonic()
        due = final or phase != self._phase or now - self._at >= self._every
        if text and text != self._text and due:
            show(f"{self._subject}: {text}{note}")
            self._phase, self._text, self._at = phase, text, now
