# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""All checks in one catalogue, each code once. The planner's rules have their own."""

from __future__ import annotations

from ...module_utils._docker.catalogue import DOCKER_CHECKS
from ...module_utils._files.catalogue import FOLDER_CHECKS
from ...module_utils._findings import Catalogue
from ...module_utils._front.catalogue import FRONT_CHECKS
from ...module_utils._hccn.catalogue import HCCN_CHECKS
from ...module_utils._host.catalogue import HOST_CHECKS
from ...module_utils._lock import LOCK_CHECKS
from ...module_utils._serving.catalogue import CANARY_CHECKS, ENGINE_CHECKS, GUARD_CHECKS
from ...module_utils._transfer.catalogue import TRANSFER_CHECKS
from ...module_utils._weights.catalogue import WEIGHTS_CHECKS
from .._front.catalogue import CERTIFICATE_CHECKS
from .._serving.catalogue import CHANGE_CHECKS

CATALOGUES = (
    *(HCCN_CHECKS, HOST_CHECKS, WEIGHTS_CHECKS, CERTIFICATE_CHECKS),
    *(TRANSFER_CHECKS, FOLDER_CHECKS, DOCKER_CHECKS, ENGINE_CHECKS, CANARY_CHECKS, CHANGE_CHECKS),
    *(LOCK_CHECKS, FRONT_CHECKS, GUARD_CHECKS),
)
CHECKS = Catalogue(*(check for catalogue in CATALOGUES for check in catalogue.values()))
