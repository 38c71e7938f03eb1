#!/usr/bin/env bash
# The proxy, on @HOST@. Written by ascend.pd_rollout: change the inventory, not this file.
set -euo pipefail

@ENVIRONMENT@
cd @DIRECTORY@
exec python @ARGUMENTS@
