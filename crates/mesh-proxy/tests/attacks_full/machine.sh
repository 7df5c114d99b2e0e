#!/usr/bin/env bash
# Runs a test of attacks_full in an emulated machine, where a process may have as many descriptors as
# it wants: with 20,000 in all, as some containers have, a crowd of 20,000 does not fit.
#   machine.sh KERNEL [TEST]
# KERNEL is a Linux that needs no module to start from memory: Debian's linux-image-cloud-amd64 has
# one. Needs qemu-system-x86_64 and busybox (Debian: qemu-system-x86, busybox-static), and of the
# peers those that are to be compared: MESH_ENVOY names Envoy, nginx is on the path.
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
kernel=$(realpath "$1") test=${2:-a_crowd_that_says_nothing_keeps_nobody_out}
own=$(realpath "$(dirname "$0")/../..")
cd "$own/../.."
build=(cargo test --release --workspace --all-features --test attacks_full --no-run)
program=$("${build[@]}" 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
program=$(realpath "$program")
[ -x "$program" ] || { echo "machine.sh: ${build[*]} makes no program" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/files/{bin,proc,sys,dev,run,tmp,etc,var/log/nginx}
# A program where it is here, with the libraries that it is linked with.
put() {
  local file
  for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
    mkdir -p "$root/files$(dirname "$file")"
    cp -Ln "$file" "$root/files$file"
  done
}
put "$program"
put "$(dirname "$(dirname "$program")")/mesh-proxy"
put "$(command -v bash)"
put "$(command -v setpriv)"
[ -z "${MESH_ENVOY:-}" ] || put "$MESH_ENVOY"
! command -v nginx >/dev/null || put "$(command -v nginx)"
cp -L "$(command -v busybox)" "$root/files/bin/busybox"
cp /etc/passwd /etc/group "$root/files/etc/"
mkdir -p "$root/files$own"
cat >"$root/files/init" <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /usr/bin /usr/sbin /sbin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/sbin TMPDIR=/run MESH_ENVOY=${MESH_ENVOY:-}
[ -n "\$MESH_ENVOY" ] || unset MESH_ENVOY
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
ip link set lo up
ulimit -n 100000
echo 1024 65001 >/proc/sys/net/ipv4/ip_local_port_range
cd $own
$program $test --nocapture --exact
poweroff -f
INIT
chmod +x "$root/files/init"
(cd "$root/files" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$root/initrd")
timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 8G -smp 2 -nographic -no-reboot \
  -kernel "$kernel" -initrd "$root/initrd" -append "console=ttyS0 quiet panic=-1" </dev/null |
  tee "$root/said"
grep -q '^test result: ok' "$root/said"
