# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2329
# A part of engine.sh, for external data parallel: one `vllm serve` for each rank, side by side in one
# container; each line of output begins with the rank. The arguments of vllm refer to rank and port.
# Not `wait -n`: it overlooks a process that has ended before it is asked for (bash before 5.3).

servers=()
# serve RANK CHIPS PORT: the API server of one data-parallel rank.
serve() {
  local rank=$1 chips=$2 port=$3
  ASCEND_RT_VISIBLE_DEVICES="$chips" vllm serve @ARGUMENTS@ \
    > >(sed -u "s/^/[rank $rank] /") 2>&1 &
  servers[rank]=$!
}

# A request to stop goes on to all of them.
stopping=
stop() {
  stopping=yes
  kill -TERM "${servers[@]}" 2>/dev/null || true
}
trap stop TERM INT

@RANKS@

# They are one group: when one ends, the others end with it, and the container, where everyone sees it.
while [ -z "$stopping" ]; do
  for rank in "${!servers[@]}"; do
    kill -0 "${servers[rank]}" 2>/dev/null || break 2
  done
  sleep 1 &
  wait $! || true
done
if [ -n "$stopping" ]; then
  wait "${servers[@]}" || true
  exit 0
fi
status=0
wait "${servers[rank]}" || status=$?
echo "Rank $rank has ended with exit code $status: the others are stopped."
kill -TERM "${servers[@]}" 2>/dev/null || true
# Time for the last lines of their logs; who is left then ends with the container.
sleep 1
exit "$((status == 0 ? 1 : status))"
