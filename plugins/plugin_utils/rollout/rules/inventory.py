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
    "Every pd_ variable is one the collection knows",
    cure="correct the name, or remove the variable",
    source=_CONTRACT,
)
BAD_VALUE = declare(
    "PD102",
    ERROR,
    "Every variable has the type and range it is documented with",
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
    cure="correct the expression, or supply what it refers to",
    source=_CONTRACT,
)
UNKNOWN_RELEASE = declare(
    "PD105",
    ERROR,
    "pd_release names a release that the collection has data for",
    cure="use a known release",
    source="plugins/plugin_utils/rollout/data/releases",
)
UNKNOWN_PROFILE = declare(
    "PD106",
    ERROR,
    "pd_profile names a profile that exists",
    cure="use a known profile, or generic and pd_engine_args",
    source="plugins/plugin_utils/rollout/data/profiles",
)
DIFFERS_IN_CLUSTER = declare(
    "PD107",
    ERROR,
    "Variables of the whole cluster have one value",
    cure="set it once, in group_vars/all",
    source=_CONTRACT,
)
NUMBER_AS_TEXT = declare(
    "PD109",
    HINT,
    "A number is written as a number, not as text",
    cure="remove the quotes; with -e give it as JSON, such as -e '{\"pd_proxy_port\": 8006}'",
    source=_CONTRACT,
)
NO_INSTANCES = declare(
    "PD110",
    ERROR,
    "There is a prefiller and a decoder: neither serves without the other",
    cure="put hosts into both groups, prefiller and decoder",
    source="A@v0.13.0:docs/source/tutorials/pd_disaggregation_mooncake_multi_node.md",
)
EMPTY_INSTANCE = declare(
    "PD111",
    ERROR,
    "Every instance has a host",
    cure="put hosts into the group, or remove it",
    source=_CONTRACT,
)
STRAY_HOST = declare(
    "PD112",
    ERROR,
    "Where a role has instance groups, each of its hosts is in one of them",
    cure="move the host into one of the instance groups",
    source=_CONTRACT,
)
TWO_ROLES = declare(
    "PD113",
    ERROR,
    "An instance has one role and one name",
    cure="make one group for each role",
    source=_CONTRACT,
)
NO_PROXY = declare(
    "PD114",
    ERROR,
    "One host runs the proxy",
    cure="put the head of a prefiller into the group proxy",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
TWO_DEPLOYMENTS = declare(
    "PD118",
    ERROR,
    "A server belongs to one deployment, and so does an instance",
    cure="set pd_deployment for whole instances, and give each deployment servers of its own",
    source="docs/topologies.md",
)
NOT_ONE_ENGINE = declare(
    "PD119",
    ERROR,
    "With pd_mode colocated there is one engine, in the group decoder, and nothing else",
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
    "The name of an instance can be that of a container and of a file",
    cure="give the group another name; letters, digits, dots, dashes and underscores are fine",
    source="docs/variables.md (names)",
)
