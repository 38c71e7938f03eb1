# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The table of the checks of servers and of the network between them: why, how bad, its cure.

docs/checks.md is made from this table and from that of hccn_checks.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INSTALL = "vllm-ascend v0.13.0, installation.md"
TUNING = "vllm-ascend v0.13.0, optimization_and_tuning.md, OS optimization"
GET_IP = "vLLM 0.13.0, vllm/utils/network_utils.py: get_ip"


@dataclass(frozen=True)
class HostCheck:
    """One thing that can be wrong with a server, or between servers."""

    code: str
    title: str
    why: str
    severity: str
    expected: str
    cure: str
    source: str
    between: bool = False


_TABLE = (
    HostCheck(
        "host-not-root",
        "The check does not run as root",
        "Who holds a port, the Docker Engine, the firewall, and directories only for root are not seen.",
        "warning",
        "the check runs as root on the server",
        "ansible {host} -m ansible.builtin.command -a whoami -b  # become: true, or log in as root",
        "this collection",
    ),
    # Devices and NPUs
    HostCheck(
        "host-device-missing",
        "A device of the plan is missing",
        "Docker refuses to create the container without it.",
        "error",
        "every device of the plan is there",
        "ls -l /dev/davinci*; npu-smi info  # a lost chip comes back with a reset or a reboot",
        INSTALL,
    ),
    HostCheck(
        "host-mount-missing",
        "A path that is mounted into the containers is missing",
        "Docker makes an empty directory in its place or refuses; the engine lacks the driver's libraries.",
        "error",
        "every path that the plan mounts is there",
        "ls -ld {paths}  # those of the driver come with its installation",
        INSTALL,
    ),
    HostCheck(
        "host-npu-smi-elsewhere",
        "npu-smi lies elsewhere than the containers mount it from",
        "Docker refuses the container, `bind source path does not exist`, or makes an empty directory there.",
        "error",
        "npu-smi, or a link to it, at the path that the plan mounts",
        "ln -s {found} {path}",
        INSTALL,
    ),
    HostCheck(
        "host-chip-held",
        "A container of others has a chip of the plan",
        "The driver gives a chip to one unprivileged container at a time, from its first use on, and also to "
        "one that does nothing any more: the engine stops with `because the device is used. ret is -8020`, "
        "or -8005 and `drvRetCode=87`. A warning where it is privileged, chips may be shared (`npu-smi info "
        "-t device-share`), or it has not used them yet (/proc/uda, where the driver has it).",
        "error",
        "no running container but those of this deployment has the chips",
        "docker inspect {name}  # whose it is; then docker stop {name}, or leave its chips out of pd_chips",
        "vllm-ascend issues 632 and 2698, cann-container-image issue 46; the driver's source: "
        "pbl/uda/uda_access.c, uda_proc_fs.c",
    ),
    HostCheck(
        "host-npu-process",
        "A foreign process uses an NPU of the plan",
        "Memory of the NPU is missing: the engine stops while it loads, or the two disturb each other.",
        "error",
        "no process but those of this deployment",
        "ps -fp {pids}",
        INSTALL,
    ),
    HostCheck(
        "host-npu-unread",
        "npu-smi's table of processes was not understood",
        "Whether somebody uses the chips of the plan is not known.",
        "warning",
        "the tables of the drivers 23 to 26",
        "npu-smi info  # see yourself who uses the chips, and report the output",
        "this collection's parsers",
    ),
    HostCheck(
        "host-hbm-used",
        "Memory of an NPU is in use although no process shows",
        "The engine takes most of the memory and fails when it is not there. A killed process leaves this, "
        "or one in a container that npu-smi does not see. A reset ends whatever runs on any chip of the "
        "server (Atlas A3, and Atlas A2 with HCCS): it is advised only where the processes could be read and "
        "none has a device open.",
        "error",
        "nine tenths of the memory of each chip are free, or all but 4 GB",
        "fuser -v /dev/davinci*; npu-smi info  # nobody on any chip: npu-smi set -t reset -i NPU -c CHIP",
        f"{INSTALL}; the driver's source: npucli/npu_chip_set.c (reset_server_handle_amp)",
    ),
    HostCheck(
        "host-driver-older",
        "The driver is older than the release recommends",
        "The CANN of the image is tested with that driver.",
        "warning",
        "the driver that the release's row names, or a newer one",
        "cat /usr/local/Ascend/driver/version.info  # then install driver and firmware, and reboot",
        "CANN 8.5.0 release notes: 25.5 is recommended",
    ),
    HostCheck(
        "host-firmware-older",
        "The firmware is older than demanded",
        "Driver and firmware are tested together; an old firmware lacks what the driver asks it for.",
        "warning",
        "the firmware of host_check_firmware_minimum or of the release's row, or a newer one",
        "npu-smi info -t board -i 0  # then install driver and firmware, and reboot",
        INSTALL,
    ),
    HostCheck(
        "host-image-hardware",
        "The image is for other hardware",
        "The engine stops with `Current device type … does not match the installed version's device type`.",
        "error",
        "an image for this server's NPUs: its tag ends with -a3 for Atlas A3",
        "pd_image: …  # or leave it out: the plan takes the release's A3 image",
        "vllm-ascend v0.13.0, installation.md and vllm_ascend/utils.py",
    ),
    HostCheck(
        "host-image-architecture",
        "The image is for another architecture",
        "Its programs cannot be executed: `exec format error`.",
        "error",
        "the architecture of the server",
        "docker image rm {image}  # then provide the one for `uname -m`",
        "docker image inspect",
    ),
    HostCheck(
        "host-architecture",
        "There is no image for this architecture",
        "vllm-ascend's images are made for aarch64 and x86_64.",
        "error",
        "aarch64 or x86_64",
        "uname -m",
        INSTALL,
    ),
    # Ports
    HostCheck(
        "host-port-taken",
        "A port of the plan is taken",
        "The engine binds it at the end of its start-up and stops: `Address already in use`.",
        "error",
        "nobody listens on it but this deployment",
        "ss -ltnp sport = :{port}",
        "the plan's port table",
    ),
    HostCheck(
        "host-port-connection",
        "A port of the plan is held by an outgoing connection",
        "Linux gave it to a connection; the engine cannot bind it while that lasts.",
        "warning",
        "planned ports are kept from outgoing connections",
        "ss -tanp sport = :{port}; ansible-playbook playbooks/check.yml -e host_check_reserve_ports=true",
        "ip-sysctl: ip_local_reserved_ports",
    ),
    HostCheck(
        "host-port-hccl",
        "A port of HCCL is taken",
        "HCCL fails with EI0019 or EJ0003, or waits for 120 s.",
        "error",
        "nobody listens on HCCL's ports",
        "ss -ltnp sport = :{port}  # or set HCCL_IF_BASE_PORT in pd_engine_env",
        "vllm-ascend issues 1955, 9447, 405",
    ),
    HostCheck(
        "host-port-pool",
        "Somebody listens where a library takes ports at random",
        "A start-up fails now and then, when it picks just this port.",
        "hint",
        "nobody listens in the ranges of Mooncake",
        "ss -ltnp sport = :{port}",
        "vllm-ascend PR 6455, Mooncake v0.3.7.post2 config.h",
    ),
    HostCheck(
        "host-ports-not-reserved",
        "Linux may give planned ports to outgoing connections",
        "A start-up fails now and then with `Address already in use`, and the next one works.",
        "hint",
        "the ports that are listened on, and HCCL's, stand in net.ipv4.ip_local_reserved_ports",
        "sysctl -w net.ipv4.ip_local_reserved_ports={ranges}  # to keep: host_check_reserve_ports: true",
        "ip-sysctl: ip_local_reserved_ports",
    ),
    # NIC, addresses, routes
    HostCheck(
        "host-nic-missing",
        "The NIC is not there",
        "HCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name it: the engine finds no address.",
        "error",
        "the NIC of pd_interface",
        "ip -brief address  # then correct pd_interface, or leave it out: the NIC is found by pd_node_ip",
        "vllm-ascend v0.13.0, the guide's nic_name",
    ),
    HostCheck(
        "host-nic-down",
        "The NIC is down",
        "Nothing reaches the server over it.",
        "error",
        "the NIC is up and has a carrier",
        "ip link set {nic} up; ip -brief link show {nic}",
        "vllm-ascend v0.13.0, the guide's nic_name",
    ),
    HostCheck(
        "host-address-missing",
        "The server does not have its service address",
        "The engine cannot bind to it: `Cannot assign requested address`; peers reach another one or none.",
        "error",
        "pd_node_ip stands on a NIC of the server",
        "ip -brief address  # then correct pd_node_ip (default: ansible_host)",
        "vllm-ascend v0.13.0, the guide's local_ip",
    ),
    HostCheck(
        "host-address-elsewhere",
        "The service address is on another NIC than declared",
        "HCCL and Gloo use the NIC, the KV transfer the address: they then use different networks.",
        "error",
        "pd_interface carries pd_node_ip",
        "ip -brief address  # then correct pd_interface or pd_node_ip",
        "vllm-ascend v0.13.0, the guide's nic_name and local_ip",
    ),
    HostCheck(
        "host-advertised-address",
        "The engine would advertise another address",
        "Decoders are told to fetch from the address of the default route, which may be of another network.",
        "error",
        "VLLM_HOST_IP is pd_node_ip, or the default route leaves from pd_node_ip",
        "pd_engine_env: {VLLM_HOST_IP: {address}}  # the recommended profiles set it",
        GET_IP,
    ),
    HostCheck(
        "host-route-elsewhere",
        "The way to another server does not lead over the service address",
        "Connections come from an address that the peer does not know, over another network.",
        "error",
        "packets to every peer leave from pd_node_ip over its NIC",
        "ip route get {peer}",
        "HCCL_IF_IP and HCCL_SOCKET_IFNAME of the plan",
    ),
    # Docker, disk, memory
    HostCheck(
        "host-docker-absent",
        "There is no Docker Engine yet",
        "The role docker installs it.",
        "hint",
        "a Docker Engine, or packages of it within reach",
        "ansible-playbook playbooks/deploy.yml --tags plan,docker",
        "this collection, role docker",
    ),
    HostCheck(
        "host-docker-silent",
        "The Docker Engine does not answer",
        "The role docker starts it; if it fails to start, deployment ends there.",
        "warning",
        "an engine that answers",
        "systemctl status docker; journalctl -u docker | tail",
        "this collection, role docker",
    ),
    HostCheck(
        "host-docker-old",
        "The Docker Engine is older than the image needs",
        "Its seccomp profile refuses clone3, which the C library of the image (Ubuntu 22.04) calls for every "
        "thread: Python stops with `can't start new thread`. Not so in builds of distributions that have "
        "clone3 in the list of an old version, as openEuler's 18.09.0: the program that runs is searched for "
        "it. A warning where that cannot be seen; nothing where the engine uses no seccomp.",
        "error",
        "Docker Engine 20.10.10 or newer, or a build whose seccomp list has clone3",
        "docker version --format '{{.Server.Version}}'  # then update it from the distribution or docker-ce",
        "Docker Engine 20.10 release notes, 20.10.10: clone3; moby PRs 42681 and 42836; openEuler's "
        "docker-engine, series.conf: patches 0191 and 0192; vllm-ascend v0.13.0, Dockerfile.a3",
    ),
    HostCheck(
        "host-docker-other",
        "Another product answers in the Docker Engine's place",
        "podman-docker puts Podman's socket where the Docker Engine's is. This collection is made for the "
        "Docker Engine; with Podman it is not tested.",
        "warning",
        "a Docker Engine",
        "docker version  # then install a Docker Engine, and remove podman-docker",
        "Podman: podman-system-service, the component `Podman Engine` of /version",
    ),
    HostCheck(
        "host-docker-storage",
        "The storage driver copies whole images",
        "With vfs every layer is a full copy: the image takes several times its size, and time.",
        "warning",
        "overlay2 or overlayfs",
        "docker info --format '{{.Driver}}'  # docker_daemon_config: {storage-driver: overlay2}",
        "Docker: select a storage driver",
    ),
    HostCheck(
        "host-docker-cgroup",
        "The Docker Engine has no control groups",
        "Limits and the mapping of processes to containers do not work.",
        "warning",
        "cgroupfs or systemd",
        "docker info --format '{{.CgroupDriver}} {{.CgroupVersion}}'",
        "Docker: cgroup driver",
    ),
    HostCheck(
        "host-disk-image",
        "There is not enough space for the image",
        "The image is unpacked for minutes, and then it fails.",
        "error",
        "space for the image where the Docker Engine keeps it",
        "df -h {path}; docker system df  # docker image prune, or another data-root",
        "the size of the image, or of the archive",
    ),
    HostCheck(
        "host-disk-full",
        "The directory of the deployment cannot be written",
        "Launch scripts cannot be laid down.",
        "error",
        "some space, and no read-only file system",
        "df -h {path}; findmnt -T {path}",
        "this collection, pd_host_dir",
    ),
    HostCheck(
        "host-directory-open",
        "The directory of the deployment is not root's alone",
        "Launch scripts that root runs could be exchanged, and the API key read: deployment refuses it.",
        "error",
        "directories of root, no links of others, that nobody else can write to",
        "ls -ld {path}; chown root: {path}; chmod go-w {path}  # or another pd_host_dir",
        "this collection, pd_host_dir",
    ),
    HostCheck(
        "host-disk-weights",
        "There is not enough space for the weights",
        "They are not there yet, and do not fit.",
        "error",
        "the space of host_check_weights_gigabytes where the weights belong",
        "df -h {path}",
        "host_check_weights_gigabytes",
    ),
    HostCheck(
        "host-memory",
        "There is not enough memory",
        "The shared memory of the containers, or the loading of the weights, does not fit.",
        "error",
        "the memory of host_check_memory_gigabytes, and that of all --shm-size of the plan",
        "free -g",
        "docker run --shm-size; host_check_memory_gigabytes",
    ),
    HostCheck(
        "host-shm",
        "/dev/shm is missing or small",
        "Other than in the plan's containers, which have their own, programs on the server itself need it.",
        "hint",
        "/dev/shm of 64 MB or more",
        "mount -o remount,size=8g /dev/shm; df -h /dev/shm",
        "vllm-ascend v0.13.0, the guide's --shm-size",
    ),
    # What was deployed
    HostCheck(
        "host-deployed-stopped",
        "What was deployed does not run",
        "Requests that go to it fail. The Docker Engine starts again what is alone, unless somebody stopped "
        "it, but no node of an instance on several servers: these only start together.",
        "error",
        "every container of the plan that was deployed runs; deploy.yml starts it, and shows this as a hint",
        "ansible-playbook playbooks/deploy.yml  # docker logs --tail 50 {container} shows why it ended",
        "this collection, role container",
    ),
    HostCheck(
        "host-deployed-silent",
        "What was deployed runs, but does not answer",
        "Requests that go to it fail or wait. It starts, hangs, or is a proxy whose list of backends was "
        "changed.",
        "error",
        "its health check answers as planned",
        "docker logs --tail 50 {container}; docker stop {container}  # then playbooks/deploy.yml",
        "this collection, role container",
    ),
    HostCheck(
        "host-deployed-apart",
        "A node of an instance was started without the others",
        "The nodes of an instance form one group when they start, and none can join it later. This one waits "
        "for them, while they work without it or hang at the next request.",
        "error",
        "all nodes of an instance were started by the same rollout, and by nobody since",
        "ansible-playbook playbooks/deploy.yml",
        "this collection, role container",
    ),
    # Kernel
    HostCheck(
        "host-thp",
        "Transparent huge pages are off",
        "Loading and scheduling touch much memory; huge pages save misses.",
        "hint",
        "always or madvise",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        "Linux: admin-guide/mm/transhuge",
    ),
    HostCheck(
        "host-governor",
        "CPUs are not set to performance",
        "Launching kernels is bound by a single CPU's speed: decoding gets slower.",
        "hint",
        "the governor performance",
        "cpupower frequency-set -g performance",
        TUNING,
    ),
    HostCheck(
        "host-swappiness",
        "The kernel may swap out the engines",
        "A page that comes back from the disk stalls all ranks.",
        "hint",
        "vm.swappiness = 0",
        "sysctl -w vm.swappiness=0",
        TUNING,
    ),
    HostCheck(
        "host-numa-balancing",
        "The kernel moves memory between NUMA nodes",
        "Moving pages costs time at random moments.",
        "hint",
        "kernel.numa_balancing = 0",
        "sysctl -w kernel.numa_balancing=0",
        TUNING,
    ),
    # Between servers
    HostCheck(
        "host-image-absent",
        "The image is not there yet",
        "Deployment brings it, which takes minutes. An error where nothing can (pd_image_source: none, or"
        " an archive that is on no server).",
        "hint",
        "the image in the Docker Engine, or a source that it comes from",
        "ansible-playbook playbooks/deploy.yml --tags plan,docker",
        "this collection, role docker: pd_image_source",
        between=True,
    ),
    HostCheck(
        "host-not-checked",
        "A server could not be checked",
        "Nothing is known of it: it does not answer, refuses the login or sudo, or a check broke.",
        "error",
        "a result of host_check",
        "ansible {host} -m ansible.builtin.ping -b",
        "this collection",
        between=True,
    ),
    HostCheck(
        "host-python-old",
        "The Python of a server is too old",
        "Neither ansible-core nor this collection runs there: nothing is known of the server, and nothing "
        "can be rolled out to it.",
        "error",
        "Python 3.8 on servers, or newer; 3.7 with ansible-core 2.16 and 2.17 on the controller",
        "ansible_python_interpreter: /usr/bin/python3.11  # for {host}; install one if there is none",
        "ansible-core's support matrix; this collection, plugin_utils/server_python.py",
        between=True,
    ),
    HostCheck(
        "host-port-unreachable",
        "A port of the plan cannot be reached from a server that will use it",
        "HCCL fails with EI0006 after HCCL_CONNECT_TIMEOUT, and requests fail at the proxy or hang in the "
        "KV transfer.",
        "error",
        "every port answers to every server that uses it; a temporary listener stood there",
        "iptables -S INPUT; nft list ruleset  # on {host}",
        "the plan's port table",
        between=True,
    ),
    HostCheck(
        "host-port-other-server",
        "Another server answers at a server's address",
        "Two servers have one address, or something between them redirects.",
        "error",
        "the server of the plan answers",
        "arping -D -I NIC {address}",
        "the plan's addresses",
        between=True,
    ),
    HostCheck(
        "host-mtu-differs",
        "Servers have different MTUs",
        "Large packets are lost where the path does not tell: connections open and then hang.",
        "warning",
        "one MTU on the NICs of all servers",
        "ip link set NIC mtu {mtu}",
        "ip-sysctl: tcp_mtu_probing; RFC 1191",
        between=True,
    ),
    HostCheck(
        "host-clock-differs",
        "The clocks of two servers differ",
        "Logs cannot be put together, certificates and tokens may be refused.",
        "warning",
        "less than check_report_clock_seconds",
        "timedatectl status; chronyc tracking",
        "check_report_clock_seconds",
        between=True,
    ),
    HostCheck(
        "host-firmware-differs",
        "Servers, or NPUs of one server, have different firmware",
        "Upstream tests one firmware throughout a cluster; mixed ones are a guess.",
        "warning",
        "one firmware version on all NPUs",
        "npu-smi info -t board -i 0",
        INSTALL,
        between=True,
    ),
    HostCheck(
        "host-weights-differ",
        "Servers hold different weights",
        "Prefillers and decoders compute with different models: the answers are wrong, and nothing says so.",
        "error",
        "the same model on all servers",
        "diff <(ssh HOST1 ls -l {path}) <(ssh HOST2 ls -l {path})  # then copy it anew to {host}",
        "this collection, role model_weights: fingerprint",
        between=True,
    ),
    HostCheck(
        "host-deployed-outside",
        "A server outside of the inventory has containers of the deployment",
        "They keep its NPUs and ports, answer whoever still asks them, and no playbook stops them.",
        "warning",
        "a server is stopped with stop.yml --limit before it is taken out of the inventory",
        "put it back, run playbooks/stop.yml --limit {host}, and take it out again; or by hand: "
        "ssh {address} 'docker rm -f {containers}; rm -r {directory}', and remove it from {file}",
        "this collection, playbook stop.yml",
        between=True,
    ),
    # The report itself
    HostCheck(
        "check-waiver-invalid",
        "A waiver is not complete",
        "A waiver without reason or end stays for ever, and nobody knows why.",
        "error",
        "code, place, reason, and expires as YYYY-MM-DD",
        "check_waivers: [{code: …, place: HOST, reason: …, expires: YYYY-MM-DD}]",
        "check_waivers",
        between=True,
    ),
    HostCheck(
        "check-waiver-expired",
        "A waiver has expired",
        "The finding counts again.",
        "hint",
        "a date that is still to come",
        "check_waivers  # cure the finding, or set a new date",
        "check_waivers",
        between=True,
    ),
    HostCheck(
        "check-waiver-unused",
        "A waiver meets no finding",
        "What it was for has been cured: remove it, lest it hides the next one.",
        "hint",
        "a finding of that code and place",
        "check_waivers  # remove it",
        "check_waivers",
        between=True,
    ),
)

HOST_CHECKS: dict[str, HostCheck] = {check.code: check for check in _TABLE}


def host_finding(
    code: str,
    message: str,
    *,
    host: str | None = None,
    instance: str | None = None,
    chips: Iterable[int] = (),
    seen: str | None = None,
    expected: str | None = None,
    severity: str | None = None,
    cure: str | None = None,
    **fill: object,
) -> dict:
    """A finding; `fill` stands for the words in braces of the cure."""
    check = HOST_CHECKS[code]
    cure = cure or check.cure
    for name, value in {"host": host or "all", **fill}.items():
        cure = cure.replace("{" + name + "}", str(value))
    return {
        "code": code,
        "severity": severity or check.severity,
        "host": host,
        "instance": instance,
        "variable": None,
        "chips": sorted(set(chips)),
        "message": message,
        "seen": seen,
        "expected": expected or check.expected,
        "cure": cure,
        "source": check.source,
    }
