# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the checkout importable as ansible_collections.ascend.pd_rollout, and bundled collections with it."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]

_AnsibleCollectionFinder(paths=[str(ROOT / ".collections"), sysconfig.get_paths()["purelib"]])._install()

# No test is timed: a busy machine may stop for a second anywhere.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")
