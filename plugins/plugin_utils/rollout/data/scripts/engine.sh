#!/usr/bin/env bash
# @TITLE@. Written by ascend.pd_rollout: change the inventory, not this file.
set -euo pipefail

@ADDRESSES@

@ENVIRONMENT@

@COMMAND@
