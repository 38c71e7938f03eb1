# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What each engine and the proxy are started with: environment, arguments, container, script.

Everything here is about a cluster that the rules let pass.
"""

from __future__ import annotations

from .container import directory, engine
from .proxy import backends, entry, proxy

__all__ = ["backends", "directory", "engine", "entry", "proxy"]
