# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How each engine, the routers and the front are started: environment, arguments, container, script.

Everything here expects a cluster without errors.
"""

from __future__ import annotations

from .container import directory, engine
from .front import front
from .proxy import entry, proxy
from .router import backends

__all__ = ["backends", "directory", "engine", "entry", "front", "proxy"]
