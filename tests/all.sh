#!/usr/bin/env bash
# The one test command: installs what is missing, then format, lints, licences and every test.
#
#   tests/all.sh                          everything this machine can run; says what it left out
#   QUORATE_REQUIRE=cgroups tests/all.sh  as above, but fails when a named part is absent
#
# Parts: nextest (test runner), cgroups (limits on processes), etcd (the peer of `bench`), deny (cargo-deny),
# fencing (ClusterLabs fence agents and OpenIPMI's simulator), docker (a node inside of a container, and
# services as containers), podman and podman-rootless (services as containers of Podman),
# netns (real cuts between network namespaces), faketime (wall clocks that jump), systemd (hosts of their own with
# systemd as init) and cgroup2 (an emulated guest with version 2 alone), both made from Debian's archive into
# $QUORATE_PARTS, /var/tmp/quorate-test-parts by default, as is what libvirt needs (the driver of virtual machines is
# built and tested with emulated guests; without it that driver is left out).
# With CI=true the lock file must be current and the runner is a required part.
set -euo pipefail
cd "$(dirname "$0")/.."

require=",${QUORATE_REQUIRE:-},"
ci="${CI:-false}"
left_out=()
locked=()
if [ "$ci" = true ]; then
  locked=(--locked)
  require="${require}nextest,"
fi

say() { printf '\n== %s\n' "$*"; }
required() { [[ "$require" == *",$1,"* ]]; }
absent() { # PART WHY
  if required "$1"; then
    printf 'tests/all.sh: the required part %s is absent: %s\n' "$1" "$2" >&2
    exit 1
  fi
  left_out+=("$1: $2")
}
apt_install() { # PACKAGE..: only as root, one at a time
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  (
    flock 9
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  ) 9>"${TMPDIR:-/tmp}/quorate-apt.lock"
}
has_libvirt() {
  pkg-config --exists libvirt && command -v libvirtd && command -v virsh && command -v qemu-img &&
    command -v qemu-system-x86_64 && command -v setpriv
}
install_libvirt() {
  local packages=(libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients libvirt-dev qemu-system-x86 seabios
    busybox-static cpio pkg-config)
  local policy=/usr/sbin/policy-rc.d
  # The tests start daemons of their own; the packages are to start none.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  # A newer qemu-utils than the emulator, as backports bring it, is at odds with it.
  apt_install --allow-downgrades "${packages[@]}" 'qemu-utils=1:7.2*' 2>/dev/null || apt_install "${packages[@]}" qemu-utils
}
has_cgroups() {
  grep -qw cgroup2 /proc/mounts && return 0
  grep -q 'cgroup .*\bmemory\b' /proc/mounts && grep -q 'cgroup .*\bfreezer\b' /proc/mounts
}

for part in ${require//,/ }; do
  case "$part" in
    nextest | cgroups | etcd | deny | fencing | docker | netns | faketime | systemd | cgroup2 | podman | podman-rootless | libvirt) ;;
    *)
      printf 'tests/all.sh: QUORATE_REQUIRE names %s; parts are nextest, cgroups, etcd, deny, fencing, docker, netns, faketime, systemd, cgroup2, podman, podman-rootless, libvirt\n' "$part" >&2
      exit 2
      ;;
  esac
done

say "tools"
command -v cargo >/dev/null || { echo "tests/all.sh: cargo is missing; install a Rust toolchain" >&2; exit 1; }
command -v cc >/dev/null || apt_install gcc || { echo "tests/all.sh: a C compiler is missing; install gcc or clang" >&2; exit 1; }
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
if ! cargo nextest --version >/dev/null 2>&1; then
  echo "installing cargo-nextest"
  cargo install --quiet --locked cargo-nextest || absent nextest "cargo install failed; using cargo test"
fi
if required etcd && ! command -v etcd >/dev/null; then
  apt_install etcd-server || true
fi
command -v etcd >/dev/null || absent etcd "not installed; Debian has it as etcd-server"
has_fencing() { command -v fence_ipmilan && command -v fence_dummy && command -v ipmitool && command -v ipmi_sim; }
if required fencing && ! has_fencing >/dev/null; then
  apt_install fence-agents openipmi ipmitool || true
fi
has_fencing >/dev/null || absent fencing "not installed; Debian has them as fence-agents, openipmi and ipmitool"
if required netns; then
  command -v ip >/dev/null || apt_install iproute2 || true
  command -v nft >/dev/null || apt_install nftables || true
fi
command -v ip >/dev/null && command -v nft >/dev/null || absent netns "ip or nft is missing; install iproute2 and nftables"
[ "$(id -u)" = 0 ] || absent netns "only root may make network namespaces"
has_faketime() { compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null; }
if { required faketime || [ "$ci" = true ]; } && ! has_faketime; then
  apt_install libfaketime || true
fi
has_faketime || absent faketime "not installed; Debian has it as libfaketime"
if required systemd && [ "$(id -u)" = 0 ]; then
  command -v debootstrap >/dev/null || apt_install debootstrap debian-archive-keyring || true
  command -v nsenter >/dev/null || apt_install util-linux || true
  tests/parts/unit-root.sh >/dev/null || true
fi
[ -e "${QUORATE_PARTS:-/var/tmp/quorate-test-parts}/unit-root/.done" ] ||
  absent systemd "no files of a host to start; run tests/parts/unit-root.sh as root"
if required cgroup2; then
  # A newer qemu-utils than the emulator, as backports bring it, is at odds with it.
  command -v qemu-system-x86_64 >/dev/null ||
    apt_install --allow-downgrades qemu-system-x86 'qemu-utils=1:7.2*' 2>/dev/null || apt_install qemu-system-x86 || true
  for tool in busybox:busybox-static cpio:cpio strip:binutils; do
    command -v "${tool%%:*}" >/dev/null || apt_install "${tool##*:}" || true
  done
  tests/parts/guest-kernel.sh >/dev/null || true
fi
[ -e "${QUORATE_PARTS:-/var/tmp/quorate-test-parts}/guest-kernel/vmlinuz" ] ||
  absent cgroup2 "no kernel for a guest; run tests/parts/guest-kernel.sh"
features=()
if required libvirt && [ "$(id -u)" = 0 ]; then
  has_libvirt >/dev/null || install_libvirt || true
  tests/parts/machine-parts.sh >/dev/null || true
fi
if has_libvirt >/dev/null && [ -e "${QUORATE_PARTS:-/var/tmp/quorate-test-parts}/machines/.done" ]; then
  features=(--features libvirt)
else
  absent libvirt "libvirt, its headers, qemu or the guest is missing; as root run QUORATE_REQUIRE=libvirt tests/all.sh"
fi
docker version >/dev/null 2>&1 || absent docker "no engine answers"
if { required docker || required podman || required podman-rootless || [ "$ci" = true ]; } && [ ! -x /bin/busybox ]; then
  apt_install busybox-static || true
fi
has_podman() { command -v podman && command -v runc && [ -x /bin/busybox ] && [ "$(id -u)" = 0 ]; }
if { required podman || required podman-rootless || [ "$ci" = true ]; } && ! { has_podman && command -v slirp4netns && command -v newuidmap; } >/dev/null; then
  apt_install podman runc netavark aardvark-dns slirp4netns uidmap fuse-overlayfs catatonit iptables busybox-static || true
fi
has_podman >/dev/null || absent podman "podman, runc or busybox-static is not installed, or this account is not root"
# What runs without root's rights needs an account with ids of its own, and the devices of its network and disk.
if has_podman >/dev/null && { required podman-rootless || [ "$ci" = true ]; }; then
  id quorate-rootless >/dev/null 2>&1 || useradd -m quorate-rootless
  chmod 666 /dev/net/tun /dev/fuse 2>/dev/null || true
fi
has_rootless() { has_podman && command -v slirp4netns && command -v newuidmap && id quorate-rootless && grep '^quorate-rootless:' /etc/subuid; }
has_rootless >/dev/null 2>&1 || absent podman-rootless "slirp4netns, uidmap or the account quorate-rootless with sub ids is missing"
has_cgroups || absent cgroups "neither a version 2 tree nor the version 1 controllers are mounted"
[ -w /sys/fs/cgroup ] && [ "$(id -u)" = 0 ] || absent cgroups "this account may make none; run as root"
cargo deny --version >/dev/null 2>&1 || absent deny "not installed; the tidy test checks licences and sources instead"
cargo --version

say "format"
cargo fmt --all --check

say "lints"
cargo clippy "${locked[@]}" --workspace --all-targets --quiet -- -D warnings
if [ ${#features[@]} -gt 0 ]; then
  cargo clippy "${locked[@]}" "${features[@]}" --package quorate --all-targets --quiet -- -D warnings
fi

if cargo deny --version >/dev/null 2>&1; then
  say "licences"
  cargo deny --all-features --offline check --hide-inclusion-graph licenses bans sources
fi

say "examples in the documentation"
cargo test "${locked[@]}" "${features[@]}" --workspace --doc --quiet

say "tests"
for line in "${left_out[@]}"; do
  printf 'left out: %s\n' "$line"
done
if cargo nextest --version >/dev/null 2>&1; then
  profile=default
  [ "$ci" = true ] && profile=ci
  cargo nextest run "${locked[@]}" "${features[@]}" --workspace --profile "$profile"
else
  # Without the runner's groups the tests that measure time would disturb one another.
  cargo test "${locked[@]}" "${features[@]}" --workspace --all-targets -- --test-threads 1
fi
