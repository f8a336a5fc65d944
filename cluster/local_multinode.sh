#!/usr/bin/env bash
# Several Ray nodes on one machine: to rehearse what a search does on a cluster, and what it does when a node is lost.
#
#   autoprune cluster local_multinode --out nodes.sh
#   ./nodes.sh search digits_demo --out runs/rehearsal    # starts the nodes, searches on them, ends them
#   ./nodes.sh resume runs/rehearsal --trials 40          # so does every command of autoprune that takes --address
#
#   ./nodes.sh start                                      # or step by step: nodes that run already are left running
#   ./nodes.sh search digits_demo --out runs/lost &
#   ./nodes.sh kill 2                                     # node 2 is gone at once, as after a power cut; 1 is the head
#   ./nodes.sh add                                        # one more joins
#   ./nodes.sh stop                                       # ends these nodes, and no other Ray process of this machine
#
# Values:
#   nodes: 3: Ray nodes, the head among them
#   cpus: 1: cores that each of them has
#   gpus: 0: GPUs that each of them has; the first node gets the machine's first ones, the next node the next ones
#   store: 128: MB of each node's object store
#   port: 6400: of the head; the port above it, and one for each node above that, are used as well
set -euo pipefail

port=@port@
folder="/tmp/autoprune-nodes-$(id -u)-$port" # short: Ray's sockets lie in it
address="127.0.0.1:$port"

# A token of their own, in a folder of yours: these nodes listen on every network, and answer only those who have it; a
# Ray before 2.59 answers anybody. Other Ray clusters of this machine have other tokens, and no say here.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0
# Ray would give a node that ends 30 s for work that nobody waits for.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

fail() {
  echo "$0: $1" >&2
  exit "${2:-1}"
}

# The process of node $1, if it is one of ours and alive: a number in a file may belong to another process by now.
process() {
  local pid
  pid=$(cat "$folder/node-$1.pid" 2>/dev/null) || return 1
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *"--temp-dir=$folder "* ]] || return 1
  echo "$pid"
}

numbers() { # of all nodes that were started and not ended since
  local file
  for file in "$folder"/node-*.pid; do
    [ ! -e "$file" ] || basename "$file" .pid | cut -d- -f2
  done | sort -n
}

is_up() { process 1 >/dev/null; }

# Ports of its own for whatever has a fixed one in Ray, which counts on one node a machine.
start_node() {
  local number=$1 log="$folder/node-$1.log" role=(--address="$address")
  if [ "$number" = 1 ]; then
    role=(--head --port="$port" --include-dashboard=false)
    python3 -c 'import grpc' 2>/dev/null && role+=(--ray-client-server-port=$((port + 1)))
  fi
  rm -f "$log" # of an earlier node of that number, which had started
  CUDA_VISIBLE_DEVICES=$(seq -s, $(((number - 1) * @gpus@)) $((number * @gpus@ - 1))) \
    setsid ray start --block "${role[@]}" --temp-dir="$folder" \
    --num-cpus=@cpus@ --num-gpus=@gpus@ --resources="{\"node_$number\": 1}" --object-store-memory=$((@store@ << 20)) \
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=$((port + 1 + number)) \
    >"$log" 2>&1 </dev/null &
  local pid=$!
  echo "$pid" >"$folder/node-$number.pid"
  for _ in $(seq 600); do
    ! grep -qs "Ray runtime started" "$log" || return 0
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 5 "$log" >&2
  fail "node $number did not start; all it said is in $log"
}

start() {
  ! is_up || fail "the nodes are running: $address"
  [ ! -e "$folder" ] || { [ -O "$folder" ] && [ ! -L "$folder" ]; } || fail "$folder is not a folder of yours"
  stop # workers of a head that is gone
  rm -rf "$folder"
  (umask 077 && mkdir "$folder" && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$folder/token")
  local number
  for number in $(seq @nodes@); do start_node "$number"; done
  echo "$(numbers | wc -l) Ray nodes at $address; what they write is in $folder"
}

add() {
  is_up || fail "no nodes are running; first: $0 start"
  local last
  last=$(numbers | tail -n 1)
  start_node $((last + 1))
  echo "node $((last + 1)) has joined"
}

kill_node() {
  local pid
  pid=$(process "$1") || fail "no node $1 is running" 2
  kill -KILL "$pid" # Linux ends the node's other processes with it
  rm "$folder/node-$1.pid"
  echo "node $1 is gone"
}

# What Ray wrote is kept if a node had ended by itself.
stop() {
  local number pid lost=""
  for number in $(numbers); do
    if pid=$(process "$number"); then
      kill -TERM "$pid"
    else
      lost+=" $number"
      tail -n 5 "$folder/node-$number.log" >&2
    fi
  done
  for number in $(numbers); do
    for _ in $(seq 50); do
      pid=$(process "$number") || break
      sleep 0.2
    done
    ! pid=$(process "$number") || kill -KILL "$pid"
    rm "$folder/node-$number.pid"
  done
  if [ -n "$lost" ]; then
    echo "$0: ended by itself: node$lost; see $folder" >&2
  elif [ -e "$folder/token" ]; then
    rm -rf "$folder" || rm -rf "$folder" # the last of Ray's processes may still write
  fi
}

# A signal to this script goes on to autoprune, which ends in order; bash alone would first wait for its end.
run() {
  if ! is_up; then
    trap stop EXIT
    start
  fi
  local code=0 command
  autoprune "$@" --address "$address" &
  command=$!
  trap 'kill -TERM "$command"' INT TERM HUP
  while :; do
    wait "$command" && code=0 || code=$?
    kill -0 "$command" 2>/dev/null || return "$code"
  done
}

case "${1:-}" in
  start | stop | add) "$1" ;;
  kill) kill_node "${2:-}" ;;
  "" | -*) fail "start, stop, add, kill NODE, or a command of autoprune that takes --address" 2 ;;
  *) run "$@" ;;
esac
