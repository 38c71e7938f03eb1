# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which network carries the traffic between the servers, as product and environment decide it.

Between the servers of a super pod (Atlas A3) that is HCCS, between others RoCE. Two variables move it:
`HCCL_INTER_HCCS_DISABLE=TRUE` sends HCCL over RoCE within a super pod too (CANN, environment variables; Atlas
A3 alone knows it), and with `HCCL_INTRA_ROCE_ENABLE=1` the KV transfer makes RoCE endpoints alone (hixl
v9.1.0, endpoint_generator.cc, BuildEndpointList), while HCCL between the nodes of an instance stays with
HCCS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from .model import Cluster

Fabric = Literal["hccs", "roce", "both"]


def fabric(cluster: Cluster) -> Fabric:
    """The network between the servers; `both` where only one part of the traffic is moved to RoCE.

    One engine that is told so decides for all: HCCL and the KV transfer need two ends.
    """
    if cluster.declaration.server == "atlas-a2":
        return "roce"
    if "true" in _values(cluster, "HCCL_INTER_HCCS_DISABLE"):
        return "roce"
    return "both" if "1" in _values(cluster, "HCCL_INTRA_ROCE_ENABLE") else "hccs"


def _values(cluster: Cluster, name: str) -> Iterator[str]:
    return (
        str(node.env[name]).strip().lower()
        for instance in cluster.instances
        for node in instance.nodes
        if name in node.env
    )
