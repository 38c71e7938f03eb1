# shellcheck shell=dash
# shellcheck disable=SC2034,SC2154 # variables are shared with the tool that sources this file
# Common part of the simulated hccn_tool and npu-smi (sourced by both).
#
# The state stands in $state/server.json and $state/faults.json. render.py turns it into one small shell file per answer,
# anew whenever one of the two has changed; a query then costs one process.

cache=${PD_SIM_CACHE:-/run/pd-sim-tools}
if [ -z "${PD_SIM_CACHE-}" ] && [ ! -w /run ]; then
    cache=/tmp/pd-sim-tools.$(id -u)
fi

# fresh: is the rendered state newer than what it was made from?
fresh() {
    [ -e "$cache/current/stamp" ] || return 1
    [ "$state/server.json" -nt "$cache/current/stamp" ] && return 1
    [ "$state/render.py" -nt "$cache/current/stamp" ] && return 1
    if [ -e "$state/faults.json" ]; then
        [ "$state/faults.json" -nt "$cache/current/stamp" ] && return 1
        [ -e "$cache/current/with-faults" ]
    else
        [ ! -e "$cache/current/with-faults" ]
    fi
}

# hang: as a driver call that never returns. Only SIGKILL ends it.
hang() {
    trap '' HUP INT TERM
    sleep 86400
    exit 1
}

# load FILE: sets delay, rc, out … of this answer; handles what goes wrong before there is an answer.
load() {
    if [ ! -e "$state/server.json" ]; then
        printf 'dcmi module initialize failed. ret is -8005\n'
        exit 255
    fi
    if ! fresh; then
        mkdir -p "$cache"
        exec 9>"$cache/render.lock"
        flock 9
        fresh || python3 -S -E "$state/render.py" "$state" "$cache" || exit 255
        exec 9>&-
    fi
    [ -e "$cache/current/$1" ] || return 1
    hang='' root='' delay=0 rc=0 out='' fails_to='' hang_to='' form='' self=''
    # shellcheck source=/dev/null
    . "$cache/current/$1"
    if [ -n "$root" ] && [ "$(id -u)" != 0 ]; then
        if [ "${0##*/}" = hccn_tool ]; then needs_root; fi
        printf '%s: Permission denied, please use root to execute this command\n' "${0##*/}"
        exit 1
    fi
    if [ -n "$hang" ]; then hang; fi
    return 0
}

# end: the tool's last step, which takes the time that the real one takes. Where nothing follows, `sleep` replaces this process:
# sixteen tools run at once on each server, and all servers share one machine. Who runs a tool waits for its end anyway.
end() {
    if [ "$rc" = 0 ]; then exec sleep "$delay"; fi
    sleep "$delay"
    exit "$rc"
}

# reaches ADDRESS: does a ping from this chip to that chip address arrive? The server that holds it is really contacted.
reaches() {
    case " $fails_to " in *" $1 "* | *" all "*) return 1 ;; esac
    [ -e "$cache/current/peer/$1" ] || return 1
    read -r host < "$cache/current/peer/$1"
    case " $fails_to " in *" $host "*) return 1 ;; esac
    [ "$host" = "$self" ] && return 0
    # A port that nobody listens on: the refusal shows that the server is up, and costs it nothing. A server that is down is
    # given up by the kernel after about three seconds; less would fail pings where this machine is busy.
    case $(LC_ALL=C exec timeout 5 bash -c ": < /dev/tcp/$host/1 && echo refused" 2>&1) in
        *refused*) return 0 ;;
    esac
    return 1
}

# answer RECEIVED: what a ping prints.
answer() {
    if [ -n "$out" ]; then
        printf '%s' "$out"
        return
    fi
    printf 'device %s PING %s\n' "$chip" "$address"
    case $form in
        success) said "$1" ;;
        driver) counted "$1" ;;
        *) as_ping "$1" ;;
    esac
}

# said RECEIVED: one line, as older drivers have it for -hccs_ping.
said() {
    if [ "$1" -gt 0 ]; then printf 'This pkt ping success\n'; else printf 'This pkt ping failed, recv timeout\n'; fi
}

# counted RECEIVED: -hccs_ping of drivers 25 and 26; after the first packet that fails no other is sent.
counted() {
    word='This pkt ping success!' i=0
    [ "$1" -gt 0 ] || word='This pkt send fail!'
    printf '\n'
    while [ "$i" -lt "$packets" ]; do
        time=12.345
        [ "$1" -gt 0 ] || time=0.000
        printf '%s\nrecv seq %s, time = %sus, L1 plane check result = 0x0\n\n' "$word" "$i" "$time"
        [ "$1" -gt 0 ] || word='This pkt ping not start to send!'
        i=$((i + 1))
    done
    printf '%s packets transmitted, %s received, %s.00%% packets loss\n' "$packets" "$1" $((100 - 100 * $1 / packets))
    for name in max min average TP95; do printf '%s time %sus\n' "$name" "$time"; done
    printf 'Cmd executed successfully!\n'
}

# as_ping RECEIVED: -ping, and -hccs_ping of some drivers.
as_ping() {
    i=0
    while [ "$i" -lt "$packets" ]; do
        if [ "$i" -lt "$1" ]; then
            printf 'recv seq=%s,time=0.114000ms\n' "$i"
        else
            printf 'recv time out seq=%s\n' "$i"
        fi
        i=$((i + 1))
    done
    printf '%s packets transmitted, %s received, %s.00%% packet loss\n' "$packets" "$1" $((100 - 100 * $1 / packets))
}
