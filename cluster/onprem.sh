#!/usr/bin/env bash
# A Ray cluster on machines of your own, each with the same Python, the same packages and the data.
#
#   autoprune cluster onprem --out onprem.sh
#   ./onprem.sh head 10.0.0.1                # on the first machine, with its address for the others; makes a token
#   scp onprem.sh ~/.autoprune-token ...     # to every other machine, and there, with the same address:
#   ./onprem.sh worker 10.0.0.1
#   ./onprem.sh search cifar10_resnet20 --set resources.gpus_per_trial=1 --out runs/cluster    # on one of the machines
#   ./onprem.sh stop                         # on each: ends this node, and no other Ray process of the machine
#
# `search`, `resume` and `finish` are autoprune's, with the cluster's address and token. What follows the address goes
# to `ray start` on that machine: ./onprem.sh worker 10.0.0.1 --num-gpus=2 --num-cpus=16
#
# Values:
#   port: 6379: of Ray on the first machine
#   folder: /tmp/autoprune-cluster: on each machine, for what Ray writes; its path must be short
#   token: ~/.autoprune-token: file of the cluster's token, the same on all machines
set -euo pipefail

port=@port@
folder=@folder@
token=@token@

# Set on every machine alike: a head that finds a token demands one, a worker without the variable does not send it. The
# token travels unencrypted: use a network you trust.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"

fail() {
  echo "$0: $1" >&2
  exit 2
}

# This machine's node, if it is ours and alive: the number in the file may belong to another process by now.
process() {
  local pid
  pid=$(cat "$folder/node.pid" 2>/dev/null) || return 1
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *"--temp-dir=$folder "* ]] || return 1
  echo "$pid"
}

# Ray's node on this machine, of the cluster whose head is at $1.
start() {
  [ -n "$1" ] || fail "the address of the first machine is missing"
  ! process >/dev/null || fail "this machine's node is running already"
  mkdir -p "$folder"
  rm -f "$folder/node.log"
  setsid ray start --block --temp-dir="$folder" "${@:2}" >"$folder/node.log" 2>&1 </dev/null &
  local pid=$!
  echo "$pid" >"$folder/node.pid"
  echo "$1:$port" >"$folder/address"
  until grep -qs "Ray runtime started" "$folder/node.log"; do
    kill -0 "$pid" 2>/dev/null || { tail -n 5 "$folder/node.log" >&2; fail "Ray did not start; see $folder/node.log"; }
    sleep 0.5
  done
}

stop() {
  local pid
  pid=$(process) || fail "no node of this script's is running here"
  kill -TERM "$pid" # Ray gives work on the node 30 s to leave
  while process >/dev/null; do sleep 0.5; done
  rm "$folder/node.pid" "$folder/address"
}

case "${1:-}" in
  head)
    # Not `ray get-auth-token --generate`: it fails where RAY_AUTH_TOKEN_PATH names a file that is not there yet.
    [ -s "$token" ] || (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token")
    start "${2:-}" --head --node-ip-address="${2:-}" --port="$port" --include-dashboard=false "${@:3}"
    echo "copy $0 and $token to the other machines, then there: $0 worker $2"
    ;;
  worker)
    [ -s "$token" ] || fail "no token at $token: copy the first machine's"
    start "${2:-}" --address="${2:-}:$port" "${@:3}"
    ;;
  search | resume | finish)
    process >/dev/null || fail "no node is running here; first: $0 head ADDRESS, or worker ADDRESS"
    exec autoprune "$@" --address "$(cat "$folder/address")"
    ;;
  stop) stop ;;
  *) fail "head ADDRESS, worker ADDRESS, search, resume, finish or stop" ;;
esac
