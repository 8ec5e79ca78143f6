#!/bin/bash
# Builds the guests: see usage below, and README.md for how an image is made.
set -euo pipefail
export LC_ALL=C

GUESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ALL="bios bootsector tiny debian"

usage() {
  cat <<'END'
Builds disk86's guests from Debian's i386 packages. Needs Node and apt; neither root nor mounts.

usage: bash guests/build.sh [NAME...] [options]

  NAME            tiny, debian, bootsector or bios; all of them if none is named. A guest brings the bios along.
  --with PKG,...  more Debian packages in the debian guest
  --kernel KIND   lz4    Debian's kernel with an LZ4 payload (the default)
                  own    a small kernel from Debian's source: a shell in a second, compiled once in 3-4 minutes
                  stock  Debian's kernel as it is
  --out DIR       where the images go (default: guests/out)
  --force         build again what is up to date, with package lists read anew
  --dry-run       say what would be built, and where
  --help          this

What changes an image changes its name, so that variants stand side by side:

  bash guests/build.sh                                out/{tiny,debian,bootsector}.qcow2, out/bios/*.bin
  bash guests/build.sh tiny --kernel own              out/tiny-own.qcow2
  bash guests/build.sh debian --with fio,sqlite3      out/debian-with-fio-sqlite3.qcow2

Environment: GUEST_CACHE names the cache (default: guests/cache), GUEST_APT_SOURCES a file of apt sources to use
instead of the machine's. Exit codes: 0 done, 1 failed, 2 usage, 3 this machine cannot build (it says why and what to do).
END
}

bad_usage() {
  echo "guests/build.sh: $1 (try --help)" >&2
  exit 2
}

names=() with="" kernel=lz4 out=$GUESTS/out force="" dry_run=""
while [ $# -gt 0 ]; do
  case $1 in
    --with | --kernel | --out) [ $# -ge 2 ] || bad_usage "$1 needs a value" ;;
  esac
  case $1 in
    --help | -h) usage && exit ;;
    --with) with=$(tr , '\n' <<<"$2" | sed '/^$/d' | sort -u | paste -sd , -) && shift ;;
    --kernel) kernel=$2 && shift ;;
    --out) out=$2 && shift ;;
    --force) force=yes ;;
    --dry-run) dry_run=yes ;;
    -*) bad_usage "unknown option $1" ;;
    *)
      case " $ALL " in *" $1 "*) names+=("$1") ;; *) bad_usage "no guest is called '$1'; there are: $ALL" ;; esac
      ;;
  esac
  shift
done
case $kernel in lz4 | own | stock) ;; *) bad_usage "--kernel takes lz4, own or stock" ;; esac
[[ $with =~ ^([a-z0-9][a-z0-9+.-]*(,|$))*$ ]] || bad_usage "--with takes package names separated by commas"
[ ${#names[@]} -gt 0 ] || read -r -a names <<<"$ALL"
case " ${names[*]} " in
  *" debian "*) ;;
  *) [ -z "$with" ] || bad_usage "--with is for the debian guest" ;;
esac
case " ${names[*]} " in *" bios "*) ;; *) names=(bios "${names[@]}") ;; esac

# image_name GUEST: its name with what sets it apart from the guest without options.
image_name() {
  local name=$1
  if [ "$1" = debian ] && [ -n "$with" ]; then name+=-with-${with//,/-}; fi
  case $1:$kernel in tiny:own | tiny:stock | debian:own | debian:stock) name+=-$kernel ;; esac
  echo "$name"
}

# results GUEST: the files its build leaves, relative to `out`.
results() {
  case $1 in
    bios) echo bios/seabios.bin bios/vgabios.bin ;;
    bootsector) echo bootsector.bin bootsector.qcow2 ;;
    *) echo "$(image_name "$1").packages" "$(image_name "$1").qcow2" ;;
  esac
}

# inputs GUEST: all that decides over its image, short of the packages' versions: scripts and options.
inputs() {
  local file
  local -a files=()
  cd "$GUESTS"
  for file in build.sh lib/* "$1"/*; do
    case $file in *.md | *.ts) ;; *) files+=("$file") ;; esac
  done
  if [ "$kernel" = own ]; then files+=(kernel/build.sh kernel/kernel.config); fi
  cksum "${files[@]}"
  echo "image $(image_name "$1")"
}

stamp() { echo "$out/.stamps/$(image_name "$1")"; }

up_to_date() {
  local file
  for file in $(results "$1"); do [ -e "$out/$file" ] || return 1; done
  [ "$(cat "$(stamp "$1")" 2>/dev/null)" = "$(inputs "$1")" ]
}

# estimate GUEST: seconds, from its entry in the catalogue: one place for the number.
estimate() {
  local seconds
  seconds=$(sed -n 's/^ *buildSeconds: \([0-9]*\).*/\1/p' "$GUESTS/$1/guest.ts" 2>/dev/null || true)
  echo "${seconds:-2}"
}

if [ -n "$dry_run" ]; then
  for name in "${names[@]}"; do
    state="to build, about $(estimate "$name") s"
    if up_to_date "$name" && [ -z "$force" ]; then state="up to date"; fi
    for file in $(results "$name"); do echo "$out/$file: $state"; done
  done
  exit
fi

todo=()
for name in "${names[@]}"; do
  if [ -z "$force" ] && up_to_date "$name"; then echo "$name: up to date" >&2; else todo+=("$name"); fi
done
if [ ${#todo[@]} -eq 0 ]; then exit 0; fi

# shellcheck source=guests/lib/run.sh
. "$GUESTS/lib/run.sh"
