# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The state of the front on a server, compared with the plan."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _systemd as systemd
from .._files import own_files
from .._files.contents import text_sha256
from . import files, nic

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


def look(front: Mapping[str, Any] | None, digests: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Return what deployment_info says of the front of a server.

    front: ``front`` of the filter front_digests; None or empty if the plan has none here.
    digests: its ``digests``.
    folder: the directory of the front.
    """
    found: dict[str, Any] = {
        "present": folder.is_dir(),
        "active": files.active(folder),
        "closed": files.closed(folder),
        "missing": [],
        "outdated": [],
        "settled": True,
    }
    if not front:
        return {**found, "settled": not found["present"]}
    moved = files.moved_from(front["unit"], folder)
    if moved is not None:
        found["active"], found["closed"] = files.active(moved), files.closed(moved)
    # Each package has a program of its name.
    found["missing"] = [name for name in front["packages"] if shutil.which(name, path=SBIN) is None]
    expected = dict(digests)
    if front["shared"]:
        expected[files.SHARED] = text_sha256(nic.filled(front["shared"], front["host"]))
    found["outdated"] = own_files.outdated(folder, expected)
    if (folder / files.PENDING).exists():
        found["outdated"].append(files.PENDING)
    units = front["units"]
    changed = {*systemd.units_outdated(units), *(unit for unit in units if not systemd.is_active(unit))}
    found["outdated"] += [systemd.unit_path(unit).name for unit in units if unit in changed]
    serves = found["active"] is not None and not found["closed"]
    return {**found, "settled": serves and not found["outdated"]}
