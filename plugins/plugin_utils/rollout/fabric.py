# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which network carries the traffic between the chips, depending on product and environment.

Between the servers of a super pod (Atlas A3) that is HCCS, between others RoCE. Where all engines are on one
server nothing goes between servers, and inside of one HCCS connects the chips, on Atlas A2, too: HCCL wants
addresses of chips "when multi Server or HCCL_INTRA_ROCE_ENABLE enabled" (its own words, vllm-ascend issue
7711), and the KV transfer takes two engines with one address for one server (vllm-ascend issue 14506).

`HCCL_INTER_HCCS_DISABLE=TRUE` sends HCCL over RoCE within a super pod too (CANN, environment variables; Atlas
A3 alone knows it). With `HCCL_INTRA_ROCE_ENABLE=1` the KV transfer takes RoCE alone ("RoCE-based deployment",
A@v0.23.0:docs/source/user_guide/feature_guide/kv_pool.md; hixl v9.1.0, endpoint_generator.cc), and so it does
with `roce:device` in `ASCEND_GLOBAL_RESOURCE_CONFIG` (hixl v9.1.0, engine_factory.cc); HCCL between the nodes
of an instance stays with HCCS then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from .model import Cluster

Fabric = Literal["hccs", "roce", "both"]


def fabric(cluster: Cluster) -> Fabric:
    """Return the network between the servers; ``both`` if only one part of the traffic uses RoCE.

    One engine with such a setting decides for all: HCCL and the KV transfer need the same at both ends.
    """
    alone = len({node.host for instance in cluster.instances for node in instance.nodes}) == 1
    if not alone and cluster.declaration.server == "atlas-a2":
        return "roce"
    if not alone and "true" in _values(cluster, "HCCL_INTER_HCCS_DISABLE"):
        return "roce"
    resources = _values(cluster, "ASCEND_GLOBAL_RESOURCE_CONFIG")
    if "1" not in _values(cluster, "HCCL_INTRA_ROCE_ENABLE") and not any(
        "roce:device" in value for value in resources
    ):
        return "hccs"
    return "both" if any(instance.spans_nodes for instance in cluster.instances) else "roce"


def _values(cluster: Cluster, name: str) -> Iterator[str]:
    return (
        str(node.env[name]).strip().lower()
        for instance in cluster.instances
        for node in instance.nodes
        if name in node.env
    )
