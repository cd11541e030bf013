#!/usr/bin/env bash
# A small Debian with systemd as its init, for tests that need a host of their own with units: prints its folder.
# Made once in a cache; root, debootstrap and Debian's archive are needed.
set -euo pipefail
folder="${QUORATE_PARTS:-/var/tmp/quorate-test-parts}/unit-root"
[ -e "$folder/.done" ] && { echo "$folder"; exit 0; }
mkdir -p "$(dirname "$folder")"
exec 8>"$folder.lock"
flock 8
[ -e "$folder/.done" ] && { echo "$folder"; exit 0; }
rm -rf "$folder"
# The archive that this machine's apt is set up with.
archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | awk '$1 == "bookworm" {print $2; exit}')
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps bookworm "$folder" "$archive" >&2
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
: >"$folder/etc/machine-id"
# What no test needs, and what waits for devices that a namespace has not.
for unit in systemd-timesyncd.service systemd-udevd.service systemd-udev-trigger.service getty.target \
  console-getty.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer dpkg-db-backup.timer systemd-logind.service sys-kernel-debug.mount sys-kernel-tracing.mount \
  dev-hugepages.mount dev-mqueue.mount systemd-firstboot.service; do
  ln -sf /dev/null "$folder/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$folder/etc/systemd/system/default.target"
touch "$folder/.done"
echo "$folder"
