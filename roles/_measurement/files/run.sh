#!/usr/bin/env bash
# Runs `commands.sh` of a folder in the container, as long as a playbook waits for it.
#
#   run.sh FOLDER LEASE
#
# The waiting playbook touches FOLDER/heartbeat. If it has not done so for LEASE seconds (it was interrupted, or its controller
# is gone), the commands and the container end, so that none is left behind. FOLDER/log holds the commands' output,
# FOLDER/exit_code their exit code.
set -u
folder=$1
lease=$2
cd "$folder" || exit 1
if [ -r /run/secrets/pd_api_key ]; then
    OPENAI_API_KEY="$(cat /run/secrets/pd_api_key)"
    export OPENAI_API_KEY
fi

finish() {
    echo "$1" > exit_code.new && mv exit_code.new exit_code
    exit "$1"
}

# Before the commands start: a signal may arrive at once.
trap 'kill -TERM $(jobs -p); finish 143' TERM INT
# The start took some time; the lease counts from here.
touch heartbeat
bash commands.sh > log 2>&1 &
child=$!
while kill -0 "$child" 2> /dev/null; do
    sleep 0.5
    age=$(($(date +%s) - $(stat -c %Y heartbeat)))
    if [ "$age" -gt "$lease" ]; then
        echo "No playbook has been waiting for this run for $age s, so it ends here." >> log
        kill -TERM "$child"
        finish 143
    fi
done
wait "$child"
finish $?
