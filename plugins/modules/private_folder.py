#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: private_folder
short_description: Create a folder whose content no other user can replace
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the roles C(_measurement), C(accuracy) and C(model_weights).
  - Creates a folder with mode 0700 if there is none. It and all folders above it must belong to root, to the
    user that this runs as, or to the user who became root with C(sudo), and no other user may be able to
    write to them. A folder with the sticky bit, such as C(/var/tmp), is accepted above an existing folder
    that is root's.
  - If other users could change it, the module fails and reports which folder is wrong and how to fix it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.server
options:
  path:
    description: The folder.
    type: path
    required: true
  cleared_by:
    description:
      - The name of a file that identifies a folder of an earlier run. If the folder contains it, the folder's
        content is removed. A folder with other content is left alone and the module fails. If empty, nothing
        is removed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Create a folder for the results, without those of the last run
  ascend.pd_rollout.private_folder:
    path: /etc/pd_rollout/pd-benchmark
    cleared_by: run.sh
"""

RETURN = r"""
findings:
  description: What is wrong with the folder, as one finding with code, path, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._files import private_folder
from ..module_utils._files.catalogue import FOLDER_CHECKS


def clear(folder: Path, mark: str) -> bool:
    """Remove what an earlier run has left; whether there was something."""
    entries = list(folder.iterdir())
    if entries and not (folder / mark).is_file():
        seen = f"a folder with other content, such as {entries[0].name}, without {mark}"
        raise private_folder.UnsafeFolder(
            FOLDER_CHECKS.finding("folder-not-empty", path=str(folder), seen=seen)
        )
    # The mark goes last: what is cut in between is gone on with by the next run.
    for entry in sorted(entries, key=lambda one: one.name == mark):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return bool(entries)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "cleared_by": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, mark = module.params["path"], module.params["cleared_by"]
    try:
        changed = not private_folder.check(path)
        if not module.check_mode:
            folder = private_folder.ensure(path)
            changed = bool(mark and clear(folder, mark)) or changed
    except private_folder.UnsafeFolder as error:
        module.fail_json(**error.failure())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
