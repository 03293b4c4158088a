"""Tries what the agent never does, each in a process of its own, and prints `NAME OUTCOME` lines: `ok` or the errno's name.

Run under the restrictions of the shipped unit, and once more without them, so that a refusal is known to be the unit's. Calls
that would change the machine have arguments that the kernel refuses by themselves, in another way.
"""

import ctypes
import errno
import mmap
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
NETLINK_NETFILTER = 12


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def socket_of(family, kind):
    return lambda: socket.socket(family, kind)


def opened(path, flags):
    return lambda: os.open(path, flags, 0o600)


def entered(kind, flag):
    return lambda: call("setns", os.open(f"/proc/self/ns/{kind}", os.O_RDONLY), flag)


def set_user_id_file():
    path = f"{sys.argv[1]}.suid"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    try:
        os.chmod(path, 0o4700)
    finally:
        os.unlink(path)


def owner_of_a_file():
    path = f"{sys.argv[1]}.chown"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    try:
        os.chown(path, 1, 1)
    finally:
        os.unlink(path)


def own_descriptor():
    # The number is the same on all architectures; glibc has no function of that name yet.
    pidfd = os.pidfd_open(os.getpid())
    call("syscall", 438, pidfd, 0, 0)


TRIES = {
    "mount": lambda: call("mount", b"none", b"/srv", b"tmpfs", 0, None),
    "umount": lambda: call("umount", b"/nowhere"),
    "ptrace": lambda: call("ptrace", 0, 0, 0, 0),
    "pidfd_getfd": own_descriptor,
    "packet-socket": socket_of(socket.AF_PACKET, socket.SOCK_DGRAM),
    "raw-socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "sysctl-kernel": opened("/proc/sys/kernel/domainname", os.O_WRONLY),
    "sysctl-vm": opened("/proc/sys/vm/swappiness", os.O_WRONLY),
    "etc": opened("/etc/probe", os.O_WRONLY | os.O_CREAT),
    "usr": opened("/usr/local/probe", os.O_WRONLY | os.O_CREAT),
    "var": opened("/var/probe", os.O_WRONLY | os.O_CREAT),
    "run": opened("/run/probe", os.O_WRONLY | os.O_CREAT),
    "cgroup": lambda: os.rmdir(os.mkdir("/sys/fs/cgroup/probe") or "/sys/fs/cgroup/probe"),
    "home": lambda: os.listdir("/home"),
    "root-home": lambda: os.listdir("/root"),
    "tmp-of-others": opened("/tmp/marker", os.O_RDONLY),
    "device-of-the-machine": opened("/dev/marker", os.O_RDONLY),
    "device-node": lambda: os.mknod(f"{sys.argv[1]}.node", 0o020600, os.makedev(1, 3)),
    "user-namespace": lambda: call("unshare", CLONE_NEWUSER),
    "mount-namespace": lambda: call("unshare", CLONE_NEWNS),
    "setns-without-kind": entered("net", 0),
    "setns-mount": entered("mnt", CLONE_NEWNS),
    "module": lambda: call("delete_module", b"no_such_module", 0),
    # With a request for nothing, anybody may call it.
    "clock": lambda: call("adjtimex", ctypes.create_string_buffer(512)),
    "kernel-log": lambda: call("klogctl", 10, None, 0),
    "reboot": lambda: call("reboot", 0x12345),
    "swap": lambda: call("swapon", b"/nowhere", 0),
    "host-name": lambda: socket.sethostname(socket.gethostname()),
    "personality": lambda: call("personality", 0x0008),
    "realtime": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
    "set-user-id-file": set_user_id_file,
    "owner": owner_of_a_file,
    "write-and-execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    # What the agent does.
    "setns-net": entered("net", CLONE_NEWNET),
    "netlink-socket": socket_of(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet-filter": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close(),
    "unix-socket": socket_of(socket.AF_UNIX, socket.SOCK_STREAM),
    "inet-socket": socket_of(socket.AF_INET, socket.SOCK_STREAM),
    "inet6-socket": socket_of(socket.AF_INET6, socket.SOCK_STREAM),
    "sysctl-net": opened("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY),
    "cni-directory": opened("/etc/cni/net.d/probe", os.O_WRONLY | os.O_CREAT),
    "run-flock": opened("/run/flock/probe", os.O_WRONLY | os.O_CREAT),
}


def outcome(attempt):
    try:
        attempt()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


with open(sys.argv[1], "w") as report:
    for name, attempt in TRIES.items():
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, outcome(attempt).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            report.write(f"{name} {answer.read() or 'killed'}\n")
        os.wait()
    with open("/proc/self/status") as status:
        for line in status:
            key, _, value = line.partition(":")
            if key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask"):
                report.write(f"{key} {value.strip()}\n")
    with open("/proc/self/limits") as limits:
        for line in limits:
            if line.startswith("Max core file size"):
                report.write(f"core-limit {line.split()[5]}\n")
