# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Prints the tables and progress lines of the action plugins.

With a callback such as ``ansible.posix.json`` the standard output is a document for programs, which a table
would break. The lines then go to the standard error, which is still visible on a terminal.
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
    """Return whether people read the output of a stdout callback, given by its short or full name."""
    return callback.rpartition(".")[2] in FOR_PEOPLE


def show(text: str, color: str | None = None) -> None:
    """Print text to the screen, in one of Ansible's colours or none."""
    Display().display(text, color=color, stderr=not for_people(str(C.DEFAULT_STDOUT_CALLBACK)))
