#!/usr/bin/env bash
# The proxy (vllm-router), on @HOST@. Written by ascend.pd_rollout: change the inventory, not this file.
set -euo pipefail

@ENVIRONMENT@
# It talks to the engines only, never through an HTTP proxy that the image or Docker sets.
export NO_PROXY='*' no_proxy='*'
exec python -m vllm_router.launch_router @ARGUMENTS@
