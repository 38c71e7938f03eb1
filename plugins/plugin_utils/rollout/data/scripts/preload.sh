# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2043
# A part of engine.sh: what the image sets in ~/.bashrc only.

for library in @LIBRARIES@; do
  if [ -e "$library" ]; then export LD_PRELOAD="$library${LD_PRELOAD:+:$LD_PRELOAD}"; break; fi
done
