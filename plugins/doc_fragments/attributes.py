# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What modules of this collection support, in words that stand once."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes; a module adds `support` and its own details."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and predict the result without changing anything.
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
"""

    # What only looks or computes.
    INFO = r"""
attributes:
  check_mode:
    description: Can run in check mode and predict the result without changing anything.
    support: full
    details: Changes nothing, so the result is the same in check mode.
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: none
    details: Changes nothing.
"""

    # What changes something, and predicts it without showing a difference.
    CHANGES = r"""
attributes:
  check_mode:
    description: Can run in check mode and predict the result without changing anything.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change, in diff mode.
    support: none
"""

    # An action alone.
    CONTROLLER = r"""
attributes:
  action:
    description: Runs on the controller.
    support: full
    details: Runs on the controller only, once for all servers with C(run_once).
"""

    # An action that calls a module on the server.
    CALLS = r"""
attributes:
  action:
    description: Runs on the controller.
    support: partial
    details: Runs on the controller and calls a module on the server.
"""

    FAST_PATH = r"""
attributes:
  action:
    description: Runs on the controller.
    support: partial
    details:
      - An action of the same name sends the work as a plain script to the server's Python, because that
        starts in a tenth of the time of a module. The result is the same.
      - Set C(ASCEND_PD_FAST_PATH=0) in the controller's environment to run the module instead.
"""

    SERVER = r"""
requirements:
  - Python 3.7 or later on the server
attributes:
  platform:
    description: The target's operating system.
    platforms: posix
    support: full
"""
