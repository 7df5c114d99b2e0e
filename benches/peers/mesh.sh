#!/usr/bin/env bash
# Starts mesh-proxy with one worker and the measured configuration (FEATURES.md).
#   mesh.sh H1_PORT H2C_PORT TLS_PORT TCP_PORT ADMIN_PORT "UP0 UP1 UP2 UP3" CERT KEY
# Upstreams are HOST:PORT or PORT, on loopback; they speak HTTP/1.1 and h2c on one port. CERT and KEY
# are PEM files. From the environment: MESH_PROXY, the program; MESH_WORKERS, instead of 1;
# MESH_ACCESS_LOG, a file, instead of /dev/null.
set -euo pipefail
if [ $# -ne 8 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
h1=$1 h2c=$2 tls=$3 tcp=$4 admin=$5 cert=$7 key=$8
read -r -a ups <<<"$6"
if [ ${#ups[@]} -ne 4 ]; then
  echo "mesh.sh: four upstreams are expected, not ${#ups[@]}" >&2
  exit 2
fi
dir=$(mktemp -d)
edits=(-e "s|: CERT,|: $cert,|" -e "s|: KEY,|: $key,|" -e "/notPorts/s/9000/$tcp/")
for i in "${!ups[@]}"; do
  edits+=(-e "s/\b1900$i\b/${ups[$i]##*:}/g")
done
sed "${edits[@]}" "$here/mesh/mesh.yaml" >"$dir/mesh.yaml"
binary=${MESH_PROXY:-$here/../../target/release/mesh-proxy}
exec env MESH_LOG=error "$binary" run --config "$dir" --role gateway \
  --map-port "80=$h1" --map-port "81=$h2c" --map-port "443=$tls" --map-port "9000=$tcp" \
  --concurrency "${MESH_WORKERS:-1}" --admin "127.0.0.1:$admin" \
  --access-log "${MESH_ACCESS_LOG:-/dev/null}" --drain-time 1
