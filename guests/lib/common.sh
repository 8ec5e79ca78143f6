# shellcheck shell=bash
# Sourced by every build script of the guests: strict mode, a fixed environment, progress, and the tools of this machine.
#
# guests/build.sh exports what a guest's own build.sh works with:
#   CACHE       kept between builds: package lists, .deb files, tools, kernels
#   WORK        scratch of this build, removed when it ends, however it ends
#   STAGE       the results go here; they move to their final names only when all of them are whole
#   LABEL, ESTIMATE, STARTED_MS   who is building, how long it should take, since when
set -euo pipefail

# The same packages must give the same bytes: no local time, language or umask may leak into an image.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
umask 022

GUESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LIB=$GUESTS/lib
export LIB EXIT_CANNOT_BUILD=3

now_ms() {
  local micros=${EPOCHREALTIME/[.,]/}
  echo $((micros / 1000))
}

# step TEXT: one line of progress, for people and for logs alike.
step() {
  local ms=$(($(now_ms) - STARTED_MS))
  printf '%-10s %4d.%d s of ~%d s  %s\n' "$LABEL" $((ms / 1000)) $((ms % 1000 / 100)) "$ESTIMATE" "$*" >&2
}

# cannot_build REASON: this machine lacks something; says so, and how to get a guest all the same.
cannot_build() {
  cat >&2 <<END

Cannot build ${LABEL:-the guests} on this machine: $1

The guests are made from Debian 12's i386 packages, fetched by the machine's own apt. What else works:
  - build in a Debian 12 container or machine (Node 20 or newer and apt are all it needs) and copy guests/out/ here:
      apt-get update && bash guests/build.sh
  - name a sources file that offers Debian 12, if this machine's own apt sources do not:
      GUEST_APT_SOURCES=/path/to/bookworm.list bash guests/build.sh
  - use an image of your own: disk86 boots any qcow2, raw, vmdk... image of a 32-bit x86 system.
END
  exit "$EXIT_CANNOT_BUILD"
}

# fingerprint FILE...: names the contents (and names) of files, for cache keys.
fingerprint() {
  (cd "$GUESTS" && sha256sum -- "${@#"$GUESTS/"}") | sha256sum | cut -c1-16
}

# use_fetched_tools: whatever need() has unpacked into the cache is found like the machine's own commands.
use_fetched_tools() {
  local tool lib
  PATH=$PATH:/usr/sbin:/sbin
  for tool in "$CACHE"/tools/*/; do
    PATH=$PATH:${tool}usr/bin:${tool}usr/sbin:${tool}bin:${tool}sbin
    for lib in "$tool"usr/lib/*-linux-gnu "$tool"lib/*-linux-gnu; do
      if [ -d "$lib" ]; then export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib; fi
    done
  done
  # bison looks for its skeletons and for m4 at fixed places.
  if [ -d "$CACHE/tools/bison" ]; then export BISON_PKGDATADIR=$CACHE/tools/bison/usr/share/bison; fi
  if [ -d "$CACHE/tools/m4" ]; then export M4=$CACHE/tools/m4/usr/bin/m4; fi
}

# need COMMAND:PACKAGE[,PACKAGE...]...: makes each command available. A missing one is downloaded from the machine's
# own distribution and unpacked into the cache, not installed: a build changes nothing outside its folders.
need() {
  local want command package arch deb unpacked
  use_fetched_tools
  for want in "$@"; do
    command=${want%%:*}
    if command -v "$command" >/dev/null; then continue; fi
    arch=$(dpkg --print-architecture)
    step "$command is not installed: unpacking it into the cache"
    for package in $(tr , ' ' <<<"${want#*:}"); do
      deb=$(fetch "$arch" "$package")
      unpacked=$(mktemp -d "$WORK/tool.XXXXXX")
      dpkg-deb -x "$deb" "$unpacked"
      mkdir -p "$CACHE/tools"
      rm -rf "$CACHE/tools/$package"
      mv "$unpacked" "$CACHE/tools/$package"
    done
    use_fetched_tools
    command -v "$command" >/dev/null || cannot_build "the command $command is missing (Debian package ${want#*:})."
  done
}
