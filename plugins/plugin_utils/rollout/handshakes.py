# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The handshake ports of an instance: who opens them, and which its nodes have."""

from __future__ import annotations

from collections.abc import Sequence

from .connectors import Connector
from .model import Cluster, Instance, Parallel


def handshake_ports(
    kv_port: int,
    parallel: Parallel,
    node_rank: int = 0,
    nodes: int = 1,
    connector: Connector | None = None,
) -> Sequence[int]:
    """Return the handshake ports of one node of an instance, ascending.

    ``kv_port`` is the instance's first port, ``parallel`` its sizes, ``node_rank`` the node's number among
    ``nodes``. Node 0 has the first ranks; which rank has which port depends on the connector and the release
    (``data/connectors``). Without a connector each rank has the next port.

    >>> handshake_ports(30000, Parallel(tensor=16, prefill_context=2), node_rank=1, nodes=2)
    range(30016, 30032)
    """
    local = parallel.chips // max(1, nodes)
    if connector is not None:
        return connector.ports(kv_port, parallel, node_rank * local, local)
    first = kv_port + node_rank * local
    return range(first, first + local)


def listens(cluster: Cluster, instance: Instance) -> bool:
    """Whether the instance opens its handshake ports: with MooncakeConnectorV1 the producer does, with the
    layerwise connector the consumer."""
    connector = connector_of(cluster, instance)
    return not cluster.colocated and connector is not None and connector.listener == instance.role


def connector_of(cluster: Cluster, instance: Instance) -> Connector | None:
    """Return the instance's connector in the release; None if the release has no data for that name."""
    return cluster.release.connectors.get(instance.settings.connector)
