# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How engines, routers, front and guard are started: environment, arguments, container, script.

Everything here expects a cluster without errors.
"""

from __future__ import annotations

from .container import directory, engine
from .front import front
from .guard import guard
from .proxy import entry, proxy
from .router import backends

__all__ = ["backends", "directory", "engine", "entry", "front", "guard", "proxy"]
