# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The state of the front on a server, compared with the plan."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import files, systemd

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


def look(front: Mapping[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Return what deployment_info says of the front of a server.

    front: the slice of the plan with ``digests`` and ``service_digest``; None if the plan has none here.
    folder: the directory of the front.
    """
    found: dict[str, Any] = {
        "present": folder.is_dir(),
        "active": files.active(folder),
        "installed": shutil.which("haproxy", path=SBIN) is not None,
        "outdated": [],
        "settled": True,
    }
    if front is None:
        return {**found, "settled": not found["present"]}
    found["outdated"] = files.outdated(folder, front["digests"])
    if (folder / files.PENDING).exists():
        found["outdated"].append(files.PENDING)
    if files.unit_outdated(front, front["service_digest"]) or not systemd.is_active(front["unit"]):
        found["outdated"].append(files.unit_path(front).name)
    return {**found, "settled": not found["outdated"] and found["active"] is not None}
