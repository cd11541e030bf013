#!/usr/bin/env bash
# A host for virtual machines, in namespaces of its own: machine-host.sh WORK CACHE PROGRAM [ARGUMENT..]
# WORK is an empty folder, CACHE one that keeps what libvirt finds out about emulators. The program finds its own
# /etc/libvirt, /var/lib/libvirt, /run and network, and the host's processes and control groups; it starts libvirtd.
set -euo pipefail
work=$1 cache=$2
shift 2
mkdir -p "$work"/{etc/qemu,lib,log,groups} "$cache"
cat >"$work/etc/libvirtd.conf" <<C
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
log_outputs = "3:stderr"
C
cat >"$work/etc/qemu.conf" <<C
user = "root"
group = "root"
security_driver = "none"
namespaces = []
# The emulator writes its console and log itself: no further daemon is needed.
stdio_handler = "file"
remember_owner = 0
C
# As where libvirt has no part in control groups.
[ -z "${QUORATE_TEST_NO_GROUPS:-}" ] || echo 'cgroup_controllers = []' >>"$work/etc/qemu.conf"
export work cache
exec unshare --mount --uts --net --propagation private bash -ec '
  mount --rbind /sys/fs/cgroup "$work/groups"
  mount -t sysfs sysfs /sys
  mount --rbind "$work/groups" /sys/fs/cgroup
  mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
  mount --bind "$work/etc" /etc/libvirt
  mount --bind "$work/lib" /var/lib/libvirt
  mount --bind "$work/log" /var/log/libvirt
  mount --bind "$cache" /var/cache/libvirt
  mount -t tmpfs -o mode=755 run /run
  mkdir -p /run/libvirt /run/lock
  hostname "machine-host-$$"
  ip link set lo up
  exec "$@"
' machine-host "$@"
