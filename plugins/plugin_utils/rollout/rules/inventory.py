# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the inventory itself: variables, names, groups and addresses.

The reader (``inventory/``) finds these while it turns variables into a declaration; all other rules look at
what has been read.
"""

from __future__ import annotations

from ..findings import ERROR, HINT, declare

_CONTRACT = "docs/variables.md"

UNKNOWN_VARIABLE = declare(
    "PD101",
    ERROR,
    "Every pd_ variable is known to the collection",
    cure="correct the name, or remove the variable",
    source=_CONTRACT,
)
BAD_VALUE = declare(
    "PD102",
    ERROR,
    "Every variable has its documented type and range",
    cure="correct the value",
    source=_CONTRACT,
)
MISSING = declare(
    "PD103",
    ERROR,
    "Required variables are set",
    cure="set it in group_vars/all",
    source=_CONTRACT,
)
UNREADABLE = declare(
    "PD104",
    ERROR,
    "Every variable can be evaluated",
    cure="correct the expression, or define what it refers to",
    source=_CONTRACT,
)
UNKNOWN_RELEASE = declare(
    "PD105",
    ERROR,
    "The collection has data for the release in pd_release",
    cure="use a known release",
    source="plugins/plugin_utils/rollout/data/releases",
)
UNKNOWN_PROFILE = declare(
    "PD106",
    ERROR,
    "pd_profile names an existing profile",
    cure="use a known profile, or generic with pd_engine_args",
    source="plugins/plugin_utils/rollout/data/profiles",
)
DIFFERS_IN_CLUSTER = declare(
    "PD107",
    ERROR,
    "Cluster-wide variables have the same value on every host",
    cure="set it once, in group_vars/all",
    source=_CONTRACT,
)
NUMBER_AS_TEXT = declare(
    "PD109",
    HINT,
    "Numbers are written as numbers, not as text",
    cure="remove the quotes; with -e pass it as JSON, such as -e '{\"pd_proxy_port\": 8006}'",
    source=_CONTRACT,
)
NO_INSTANCES = declare(
    "PD110",
    ERROR,
    "The inventory has a prefiller and a decoder: neither can serve alone",
    cure="add hosts to both groups, prefiller and decoder",
    source="A@v0.13.0:docs/source/tutorials/pd_disaggregation_mooncake_multi_node.md",
)
EMPTY_INSTANCE = declare(
    "PD111",
    ERROR,
    "Every instance has at least one host",
    cure="add hosts to the group, or remove the group",
    source=_CONTRACT,
)
STRAY_HOST = declare(
    "PD112",
    ERROR,
    "If a role has instance groups, each of its hosts is in one of them",
    cure="move the host into one of the instance groups",
    source=_CONTRACT,
)
TWO_ROLES = declare(
    "PD113",
    ERROR,
    "Every instance has one role and a unique name",
    cure="create a separate group for each role",
    source=_CONTRACT,
)
NO_PROXY = declare(
    "PD114",
    ERROR,
    "A host runs the proxy",
    cure="add the head node of a prefiller to the group proxy",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
TWO_DEPLOYMENTS = declare(
    "PD118",
    ERROR,
    "Every server and every instance belongs to one deployment only",
    cure="set pd_deployment for whole instances, and give each deployment its own servers",
    source="docs/topologies.md",
)
NOT_ONE_ENGINE = declare(
    "PD119",
    ERROR,
    "With pd_mode colocated, the inventory has one engine in the group decoder and nothing else",
    cure="empty the groups prefiller and proxy, or set pd_mode to disaggregated",
    source="docs/topologies.md",
)
NO_ADDRESS = declare(
    "PD121",
    ERROR,
    "Every host has a service address",
    cure="set ansible_host or pd_node_ip to the server's IPv4 address",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md (HCCL_IF_IP)",
)
NOT_IPV4 = declare(
    "PD122",
    ERROR,
    "Service addresses are IPv4 addresses that other hosts can reach",
    cure="set pd_node_ip to the server's IPv4 address on the service network",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_transfer_engine.py",
)
IPV6 = declare(
    "PD123",
    ERROR,
    "Service addresses are not IPv6",
    cure="set pd_node_ip to the server's IPv4 address",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_transfer_engine.py",
)
BAD_INSTANCE = declare(
    "PD130",
    ERROR,
    "Instance names are valid as container and file names",
    cure="rename the group; letters, digits, dots, dashes and underscores are allowed",
    source="docs/variables.md (names)",
)
