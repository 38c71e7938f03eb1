# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the modules front and front_requests_info, in plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _systemd as systemd
from .._findings import RolloutError
from . import files
from .errors import failed
from .haproxy import Haproxy, HaproxyError
from .present import Absent, Present

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "front": {"type": "dict"},
    "directory": {"type": "str"},
    "certificate": {"type": "str", "default": "", "no_log": True},
    # With no_log the values of a mapping are kept from logs, not its names.
    "keys": {"type": "dict", "default": {}, "no_log": True},
    "engine_key": {"type": "str", "default": "", "no_log": True},
    "drain": {"type": "float", "default": 0.0},
    "colour": {"type": "str", "choices": list(files.COLOURS)},
}


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module front. The option ``_check_mode`` is whether check mode is on."""
    try:
        if options["state"] == "absent":
            return Absent(options).result()
        return Present({**options, "keys": files.by_digest(options["keys"])}).result()
    except RolloutError as error:
        return error.failure()
    except HaproxyError as error:
        return failed(
            "front-silent", options["front"], str(error), path=f"{options['front']['run']}"
        ).failure()
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"{error.filename or ''}: {error.strerror or error}"}


REQUESTS_ARGUMENTS: dict[str, Any] = {
    "front": {"type": "dict", "required": True},
    "colour": {"type": "str", "choices": list(files.COLOURS), "required": True},
    "hold": {"type": "float", "default": 0.0},
}


def requests(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module front_requests: who still waits for an answer of a router."""
    front, colour = options["front"], options["colour"]
    haproxy = Haproxy(f"{front['run']}/master.sock")
    try:
        systemd.within(options["hold"], lambda: haproxy.running(colour) == 0)
        count = haproxy.running(colour)
        left = [{"client": one.client, "age": one.age} for one in haproxy.requests(colour)] if count else []
    except HaproxyError as error:
        if not systemd.is_active(front["unit"]):
            # Without a front nothing runs through it.
            return {"changed": False, "running": 0, "left": []}
        return failed("front-silent", front, str(error), path=haproxy.path).failure()
    return {"changed": False, "running": count, "left": left}
