#!/bin/bash
# As the base image of the real one: the CANN environment, then what was asked for.
set -e
for file in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
    # shellcheck source=/dev/null
    if [ -f "$file" ]; then source "$file"; fi
done
exec "$@"
