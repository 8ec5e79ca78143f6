# shellcheck shell=bash
# The second half of guests/build.sh: runs the builds in `todo`, one after the other, so that a result is either whole
# and under its name or not there.

: "${todo:?}" "${out:?}" "${kernel:?}" "${with=}" "${force=}"
LABEL=guests ESTIMATE=0 STARTED_MS=0
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=guests/lib/apt.sh
. "$LIB/apt.sh"

check_machine() {
  local command
  local -a missing=()
  for command in apt-get apt-cache dpkg dpkg-deb tar awk flock node; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  [ ${#missing[@]} -eq 0 ] || cannot_build "it has no ${missing[*]}."
  node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' || cannot_build "Node is older than version 20."
}

# lock DIR: one build at a time in a cache or an output folder; lasts as long as this script.
lock() {
  local handle
  exec {handle}>"$1/.lock"
  flock -n "$handle" && return
  echo "Another build is at work in $1; waiting for it." >&2
  flock "$handle"
}

child=""
# run COMMAND...: in a process group of its own, so that an interrupt can end all of it; without our locks.
run() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child"
  child=""
}

clean_up() {
  if [ -n "$child" ]; then
    # INT and not TERM: fakeroot ends its daemon at that only.
    kill -INT -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  rm -rf "$WORK" "$STAGE"
}

# publish GUEST: moves its results to their names. The stamp comes last: without it the guest would be built again.
publish() {
  local file
  rm -f "$(stamp "$1")"
  for file in $(results "$1"); do
    mkdir -p "$(dirname "$out/$file")"
    mv -f "$STAGE/$file" "$out/$file"
  done
  mkdir -p "$out/.stamps"
  inputs "$1" >"$(stamp "$1")"
}

build() {
  LABEL=$1 ESTIMATE=$(estimate "$1") STARTED_MS=$(now_ms) IMAGE=$(image_name "$1") KERNEL=$kernel WITH=$with OWN_KERNEL=""
  export LABEL ESTIMATE STARTED_MS IMAGE KERNEL WITH OWN_KERNEL
  rm -rf "$WORK" "$STAGE"
  mkdir -p "$WORK" "$STAGE"
  case $1 in
    bios | bootsector) run bash "$GUESTS/$1/build.sh" ;;
    *)
      if [ "$kernel" = own ]; then
        LABEL=kernel ESTIMATE=230 run bash "$GUESTS/kernel/build.sh" >"$STAGE/.kernel"
        OWN_KERNEL=$(cat "$STAGE/.kernel")
        STARTED_MS=$(now_ms)
      fi
      run "${as_root[@]}" bash "$GUESTS/$1/build.sh"
      ;;
  esac
  publish "$1"
  # shellcheck disable=SC2046 # names without spaces, one word each
  step "done: $(cd "$out" && du -h --apparent-size $(results "$1") | awk '{print $2 " (" $1 ")"}' | paste -sd ' ')"
}

# set_as_root: the command that shows a build its files as root's, whoever runs it.
set_as_root() {
  LABEL=guests ESTIMATE=2 STARTED_MS=$(now_ms)
  need fakeroot-sysv:fakeroot,libfakeroot
  as_root=(fakeroot-sysv)
  local kit=$CACHE/tools
  if [ -d "$kit/libfakeroot" ]; then
    as_root+=(--lib "$(ls "$kit"/libfakeroot/usr/lib/*/libfakeroot/libfakeroot-sysv.so)" --faked "$kit/fakeroot/usr/bin/faked-sysv")
  fi
  as_root+=(--)
}

check_machine
mkdir -p "$out" "${GUEST_CACHE:=$GUESTS/cache}"
out=$(cd "$out" && pwd)
CACHE=$(cd "$GUEST_CACHE" && pwd) WORK=$CACHE/work STAGE=$out/.stage
export CACHE WORK STAGE
lock "$CACHE"
lock "$out"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf "$WORK"
mkdir -p "$WORK"
if [ -n "$force" ]; then rm -f "$CACHE"/apt/*/updated; fi

as_root=()
for name in "${todo[@]}"; do
  # Whoever held the lock before may have built it.
  if [ -z "$force" ] && up_to_date "$name"; then continue; fi
  case $name in tiny | debian) [ ${#as_root[@]} -gt 0 ] || set_as_root ;; esac
  build "$name"
done
