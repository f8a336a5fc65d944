#!/usr/bin/env bash
# A Ray cluster on machines of your own. The same Python, the same packages and $AUTOPRUNE_DATA on each.
#
#   autoprune cluster onprem > onprem.sh
#   ./onprem.sh head                         # on the first machine; prints what to run on the others
#   ./onprem.sh worker HEAD_ADDRESS          # on every other machine
#   RAY_AUTH_MODE=token autoprune search cifar10_resnet20 --address HEAD_ADDRESS:6379 --out runs/cluster    # on the head
#   ./onprem.sh stop                         # on each: ends every Ray process that you may signal on this machine
#
# The token file must be the same on all machines: copy ~/.ray/auth_token, or put it on a shared file system and set
# RAY_AUTH_TOKEN_PATH. It travels unencrypted: use a network you trust. Other ports or a folder of its own for Ray:
# RAY_PORT=6390 RAY_ARGS="--temp-dir=/scratch/ray --num-gpus=2" ./onprem.sh head
set -euo pipefail

port="${RAY_PORT:-6379}"
token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
read -r -a extra <<<"${RAY_ARGS:-}"

# Set on every machine alike: a head that finds a token demands one, a worker without the variable does not send it.
export RAY_AUTH_MODE=token

usage() {
  echo "usage: $0 head | worker HEAD_ADDRESS | stop" >&2
  exit 2
}

case "${1:-}" in
  head)
    # Not `ray get-auth-token --generate`: it fails where RAY_AUTH_TOKEN_PATH names a file that is not there yet.
    [ -s "$token" ] || (umask 077 && mkdir -p "$(dirname "$token")" &&
      python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token")
    ray start --head --port="$port" --include-dashboard=false "${extra[@]}"
    echo "copy $token to the other machines, then there: $0 worker $(hostname -I 2>/dev/null | cut -d' ' -f1)"
    ;;
  worker)
    [ -n "${2:-}" ] || usage
    [ -s "$token" ] || { echo "no token at $token: copy the head's" >&2; exit 1; }
    ray start --address="$2:$port" "${extra[@]}"
    ;;
  stop)
    ray stop
    ;;
  *)
    usage
    ;;
esac
