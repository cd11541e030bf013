#!/usr/bin/env bash
# A host with systemd as its first process, in namespaces and control groups of its own: unit-host.sh ROOT WORK NAME SHARED..
# ROOT is what unit-root.sh made, WORK an empty folder; each SHARED folder is seen inside at the same path. Ends with
# its first process, which ends all others.
set -euo pipefail
root=$1 work=$2 name=$3
shift 3
mkdir -p "$work"/{upper,root}
# systemd takes the group it is started in for its root; the namespace then shows it as the root of the tree.
while read -r _ _ _ _ path _ rest; do
  case "$rest" in
    *"- cgroup "*)
      group="$path/$name"
      mkdir -p "$group"
      if [ -e "$group/cpuset.cpus" ]; then
        cat "$path/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$path/cpuset.mems" >"$group/cpuset.mems"
      fi
      echo $$ >"$group/cgroup.procs"
      ;;
    *"- cgroup2 "*)
      mkdir -p "$path/$name"
      echo $$ >"$path/$name/cgroup.procs"
      ;;
  esac
done </proc/self/mountinfo
# What the programs under test are linked with, beyond what the root has.
libraries=$(for folder in "$@"; do
  [ ! -x "$folder/quorate" ] || ldd "$folder/quorate" | awk '$2 == "=>" && $3 ~ "^/" {print $3}'
done)
export root work name libraries
shared="$*" exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc --net --propagation private bash -ec '
  r=$work/root
  mount -t tmpfs upper "$work/upper"
  mkdir "$work/upper/u" "$work/upper/w"
  mount -t overlay root -o "lowerdir=$root,upperdir=$work/upper/u,workdir=$work/upper/w" "$r"
  mount -t proc proc "$r/proc"
  mount -t sysfs -o ro sysfs "$r/sys"
  mount -t tmpfs cgroups "$r/sys/fs/cgroup"
  grep -E " - cgroup2? " /proc/self/mountinfo | while read -r _ _ _ _ path _ rest; do
    tree="$r$path"
    [ "$path" = /sys/fs/cgroup ] || mkdir -p "$tree"
    case "$rest" in
      *"- cgroup2 "*) mount -t cgroup2 cgroup2 "$tree" ;;
      *name=systemd*) mount -t cgroup -o none,name=systemd cgroup "$tree" ;;
      *) mount -t cgroup -o "$(basename "$path")" cgroup "$tree" ;;
    esac
  done
  mount -t tmpfs -o mode=755 dev "$r/dev"
  for d in null zero full random urandom tty; do
    touch "$r/dev/$d"
    mount --bind "/dev/$d" "$r/dev/$d"
  done
  mkdir "$r/dev/pts" "$r/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 pts "$r/dev/pts"
  ln -s pts/ptmx "$r/dev/ptmx"
  mount -t tmpfs -o mode=755 run "$r/run"
  for folder in $shared; do
    mkdir -p "$r$folder"
    mount --bind "$folder" "$r$folder"
  done
  for library in $libraries; do
    [ -e "$r$library" ] || cp -L "$library" "$r$library"
  done
  hostname "$name"
  ip link set lo up
  exec chroot "$r" /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init --log-target=console
'
