#!/usr/bin/env bash
# Starts mesh-proxy with one worker and the measured configuration (FEATURES.md).
#   mesh.sh H1_PORT H2C_PORT TLS_PORT TCP_PORT ADMIN_PORT "UP0 UP1 UP2 UP3" CERT KEY
#           [MTLS_PORT "MUP0 MUP1 MUP2 MUP3" FOLDER]
# Upstreams are HOST:PORT or PORT, on loopback; they speak HTTP/1.1 and h2c on one port. CERT and KEY
# are PEM files. With the last three it listens with mutual TLS, too, and speaks it to four more
# upstreams; FOLDER has what `peers-load authority FOLDER` writes. From the environment: MESH_PROXY, the
# program; MESH_WORKERS, instead of 1; MESH_ACCESS_LOG, a file, instead of /dev/null.
set -euo pipefail
if [ $# -ne 8 ] && [ $# -ne 11 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
h1=$1 h2c=$2 tls=$3 tcp=$4 admin=$5 cert=$7 key=$8
# four NAME LIST: the upstreams of a list, as the array of this name
four() {
  local -n found=$1
  read -r -a found <<<"$2"
  if [ ${#found[@]} -ne 4 ]; then
    echo "mesh.sh: four upstreams are expected, not ${#found[@]}" >&2
    exit 2
  fi
}
four ups "$6"
dir=$(mktemp -d)
edits=(-e "s|: CERT,|: $cert,|" -e "s|: KEY,|: $key,|" -e "/notPorts/s/9000/$tcp/")
for i in "${!ups[@]}"; do
  edits+=(-e "s/\b1900$i\b/${ups[$i]##*:}/g")
done
sed "${edits[@]}" "$here/mesh/mesh.yaml" >"$dir/mesh.yaml"
maps=()
if [ $# -eq 11 ]; then
  four mups "${10}"
  edits=(-e "s|: FOLDER/|: ${11}/|")
  for i in "${!mups[@]}"; do
    edits+=(-e "s/\b1901$i\b/${mups[$i]##*:}/g")
  done
  sed "${edits[@]}" "$here/mesh/mtls.yaml" >"$dir/mtls.yaml"
  maps=(--map-port "8443=$9")
fi
binary=${MESH_PROXY:-$here/../../target/release/mesh-proxy}
exec env MESH_LOG=error "$binary" run --config "$dir" --role gateway \
  --map-port "80=$h1" --map-port "81=$h2c" --map-port "443=$tls" --map-port "9000=$tcp" \
  "${maps[@]}" \
  --concurrency "${MESH_WORKERS:-1}" --admin "127.0.0.1:$admin" \
  --access-log "${MESH_ACCESS_LOG:-/dev/null}" --drain-time 1
