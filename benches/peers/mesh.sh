#!/usr/bin/env bash
# Starts mesh-proxy with one worker and the measured configuration.
#   mesh.sh H1_PORT H2C_PORT TLS_PORT TCP_PORT ADMIN_PORT "UP0 UP1 UP2 UP3" CERT KEY
# HTTP/1.1 and HTTP/2 share H1_PORT; TLS and TCP are not there yet. Upstreams are HOST:PORT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
h1=$1 admin=$5 ups=($6)
dir=$(mktemp -d)
cp "$here/mesh/mesh.yaml" "$dir/mesh.yaml"
for i in "${!ups[@]}"; do
  sed -i "s/1900$i/${ups[$i]##*:}/" "$dir/mesh.yaml"
done
binary=${MESH_PROXY:-$here/../../target/release/mesh-proxy}
exec env MESH_LOG=error "$binary" run --config "$dir" --role gateway --map-port "80=$h1" --concurrency 1 \
  --admin "127.0.0.1:$admin" --access-log /dev/null
