# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Where the tables and progress lines of the action plugins go.

A callback such as ``ansible.posix.json`` makes the standard output a document that programs read; a table in
it would break that. There the lines go to the standard error, which a person at a terminal still sees.
"""

from __future__ import annotations

from ansible import constants as C
from ansible.utils.display import Display

# Callbacks whose standard output people read: those of ansible-core, ansible.posix and community.general.
FOR_PEOPLE = frozenset(
    {
        "counter_enabled",
        "debug",
        "default",
        "default_without_diff",
        "dense",
        "diy",
        "minimal",
        "oneline",
        "selective",
        "tasks_only",
        "timestamp",
        "unixy",
        "yaml",
    }
)

# The colours of findings.
COLOURS = {"error": "red", "warning": "bright purple", "hint": "cyan"}


def for_people(callback: str) -> bool:
    """Whether lines of our own may stand in the output of a stdout callback, given by name or full name."""
    return callback.rpartition(".")[2] in FOR_PEOPLE


def show(text: str, color: str | None = None) -> None:
    """Show lines on the screen, in one of Ansible's colours."""
    Display().display(text, color=color, stderr=not for_people(str(C.DEFAULT_STDOUT_CALLBACK)))
