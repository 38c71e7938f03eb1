# shellcheck shell=bash
# What the real file does for a process that it is sourced into, as far as the simulated engine looks at it.
export ASCEND_TOOLKIT_HOME=/usr/local/Ascend/ascend-toolkit/latest
export ASCEND_HOME_PATH=${ASCEND_TOOLKIT_HOME}
export ASCEND_OPP_PATH=${ASCEND_TOOLKIT_HOME}/opp
driver=/usr/local/Ascend/driver/lib64
export LD_LIBRARY_PATH=${ASCEND_TOOLKIT_HOME}/lib64:${driver}:${driver}/common:${driver}/driver${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}
unset driver
