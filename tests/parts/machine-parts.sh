#!/usr/bin/env bash
# A kernel and an initial file system for virtual machines that tests start: prints their folder. The guest says on its
# serial console that it is up and then counts; it powers off when its power button is pressed, unless its kernel was
# told `deaf`, and after a second where it was told `brief`. Made once in a cache; Debian's archive is needed.
set -euo pipefail
folder="${QUORATE_PARTS:-/var/tmp/quorate-test-parts}/machines"
[ -e "$folder/.done" ] && { echo "$folder"; exit 0; }
mkdir -p "$folder/cache"
exec 8>"$folder.lock"
flock 8
[ -e "$folder/.done" ] && { echo "$folder"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends/{print $2; exit}')
(cd "$work" && apt-get -o APT::Sandbox::User=root download "$package" >&2 && dpkg-deb -x "$package"_*.deb unpacked)
cp "$work"/unpacked/boot/vmlinuz-* "$folder/vmlinuz"
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,modules}
cp /bin/busybox "$root/bin/"
for tool in sh mount sleep echo cat poweroff head insmod grep ls; do ln -s busybox "$root/bin/$tool"; done
# What the kernel has not built in of the power button and its events.
find "$work/unpacked" \( -name button.ko -o -name evdev.ko \) -exec cp {} "$root/modules/" \;
cat >"$root/init" <<'I'
#!/bin/sh
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
for module in /modules/*.ko; do [ -e "$module" ] && insmod "$module"; done
told() { grep -qw "$1" /proc/cmdline; }
echo "GUEST-UP $(cat /proc/cmdline)"
if ! told deaf; then
  for event in /dev/input/event*; do
    [ -e "$event" ] && (head -c 24 "$event" >/dev/null && echo POWER-BUTTON && poweroff -f) &
  done
fi
ls /dev/input 2>/dev/null
if told brief; then
  sleep 1
  poweroff -f
fi
n=0
while :; do
  n=$((n + 1))
  echo "beat $n"
  sleep 0.2
done
I
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1) >"$folder/initrd.gz"
chmod 755 "$folder"
chmod 644 "$folder/vmlinuz" "$folder/initrd.gz"
touch "$folder/.done"
echo "$folder"
