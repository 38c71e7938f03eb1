# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The allowed names of hosts, instances and deployments, defined once for all uses of a name.

A name is part of paths on the controller and on servers, of a container's name, of comments in launch
scripts, of tables and diagrams. A name is allowed if it is valid in all of them.
"""

from __future__ import annotations

import re
import unicodedata

# First part of a container's name, for which Docker allows these characters, and a directory on servers.
# module_utils/safe_paths.py has the same pattern for what is done without a plan.
DEPLOYMENT = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
DEPLOYMENT_EXPECTED = "letters, digits, dots, dashes and underscores, a letter or a digit first, at most 63"
# Follows the deployment in a container's name, and precedes .sh in a file's name of at most 255 bytes.
_INSTANCE = re.compile(r"[A-Za-z0-9_.-]{1,200}")
INSTANCE_EXPECTED = "letters, digits, dots, dashes and underscores, at most 200"
# Also the name of a directory. In addition to letters and digits of all languages: the characters of domain
# names, IPv6 addresses with their zone, and user@host.
_HOST_SIGNS = frozenset("._-:%@+")
HOST_EXPECTED = (
    "letters, digits and . _ - : % @ +, a letter, a digit, an underscore or a colon first, at most 200 bytes"
)

# Directories of the operating system and of the kernel, in which the collection must not create or replace
# anything. Below /dev/shm is memory, where users put weights.
SYSTEM = (
    r"/|/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|proc|run|sbin|sys|tmp|usr|var)"
    r"|/usr/(bin|lib|lib32|lib64|local|sbin|share|src)|/var/(cache|lib|log|run|spool|tmp)"
    r"|/dev/(?!shm/).*|/(proc|sys)/.*"
)


def instance_allowed(name: str) -> bool:
    return _INSTANCE.fullmatch(name) is not None


def host_allowed(name: str) -> bool:
    if not name or name[0] in ".-%@+" or not all(_letter(c) or c in _HOST_SIGNS for c in name):
        return False
    return len(name.encode()) <= 200


def _letter(character: str) -> bool:
    """Whether it is a letter or digit of any language, or a combining mark, as in decomposed text."""
    return character == "_" or character.isalnum() or unicodedata.category(character).startswith("M")


def of_system(path: str) -> bool:
    """Whether an absolute path is a directory of the operating system."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return re.fullmatch(SYSTEM, "/" + "/".join(parts)) is not None
