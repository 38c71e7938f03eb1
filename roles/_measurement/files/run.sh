#!/usr/bin/env bash
# Runs `commands.sh` of a folder in the container, for as long as somebody waits for it.
#
#   run.sh FOLDER LEASE
#
# The waiting playbook touches FOLDER/heartbeat. When it has not for LEASE seconds (it was interrupted, its controller is
# gone), the commands are ended, and the container with them: none is left behind. FOLDER/log has what they print,
# FOLDER/exit_code how they ended.
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

# Before there are commands: a signal may come at once.
trap 'kill -TERM $(jobs -p); finish 143' TERM INT
# Starting took a while; from here on the lease counts.
touch heartbeat
bash commands.sh > log 2>&1 &
child=$!
while kill -0 "$child" 2> /dev/null; do
    sleep 0.5
    age=$(($(date +%s) - $(stat -c %Y heartbeat)))
    if [ "$age" -gt "$lease" ]; then
        echo "Nobody has been waiting for this run for $age s: it ends here." >> log
        kill -TERM "$child"
        finish 143
    fi
done
wait "$child"
finish $?
