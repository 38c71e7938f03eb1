# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
# A part of engine.sh, which sets local_ip before it and refers to nic_name behind it.

# pd_interface is not set: the interface that holds the address.
nic_name="$(python3 - "$local_ip" <<'PYTHON'
@FIND_NIC@
PYTHON
)"
