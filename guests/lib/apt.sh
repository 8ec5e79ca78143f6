# shellcheck shell=bash
# Debian packages through the machine's own apt, with a private state per architecture: its sources and keys are used,
# its package lists, cache and dpkg database are neither read nor changed. Needs no root.

# private_apt ARCH COMMAND ARGUMENT...: apt-get or apt-cache for ARCH. Options on the command line beat whatever the
# machine's apt.conf.d says (container images, for one, switch the package cache off, which costs a second a call).
private_apt() {
  local arch=$1 command=$2 state=$CACHE/apt/$1
  shift 2
  local options=(
    -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User= -o Acquire::Languages=none
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
    -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state" -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin
  )
  if [ -n "${GUEST_APT_SOURCES:-}" ]; then
    options+=(-o "Dir::Etc::SourceList=$(readlink -f "$GUEST_APT_SOURCES")" -o Dir::Etc::SourceParts=/dev/null)
  fi
  "$command" "${options[@]}" "$@"
}

# refresh_lists ARCH: package lists no older than a day.
refresh_lists() {
  local arch=$1 state=$CACHE/apt/$1
  mkdir -p "$state/lists/partial" "$state/archives/partial"
  # An empty dpkg database: nothing counts as installed, so "essential" means a whole system.
  : >"$state/status"
  if [ -n "$(find "$state/updated" -mmin -1440 2>/dev/null)" ]; then return; fi
  step "package lists ($arch)"
  # One broken suite (a mirror being synced) or a source without this architecture must not stop the build, as long as
  # Debian's own packages are there.
  private_apt "$arch" apt-get -qq update >"$state/update.log" 2>&1 || true
  if ! private_apt "$arch" apt-cache show dpkg >/dev/null 2>&1; then
    tail -n 5 "$state/update.log" >&2
    cannot_build "its apt sources offer no packages for $arch, or could not be reached."
  fi
  touch "$state/updated"
}

# try_fetch ARCH PACKAGE...: see fetch. Fails if a package is unknown or its file is no longer where the lists say.
try_fetch() {
  local arch=$1 debs=$CACHE/debs file size part what
  local -a files=() missing=()
  local -i bytes=0
  shift
  refresh_lists "$arch"
  private_apt "$arch" apt-get download --print-uris "$@" >"$WORK/uris" || return 1
  while read -r _ file size _; do
    files+=("$file")
    if [ -e "$debs/$file" ]; then continue; fi
    missing+=("${file%%_*}")
    bytes+=$size
  done <"$WORK/uris"
  if [ ${#missing[@]} -gt 0 ]; then
    what="${#missing[@]} packages"
    if [ ${#missing[@]} -eq 1 ]; then what=${missing[0]}; fi
    step "downloading $what ($(((bytes + 999999) / 1000000)) MB)"
    part=$(mktemp -d "$WORK/download.XXXXXX")
    (cd "$part" && private_apt "$arch" apt-get -qq download "${missing[@]}") || return 1
    mkdir -p "$debs"
    mv "$part"/*.deb "$debs/"
  fi
  printf "$debs/%s\n" "${files[@]}"
}

# fetch ARCH PACKAGE...: downloads what the cache lacks; prints the path of each .deb file, one a line.
fetch() {
  if try_fetch "$@"; then return; fi
  # A security update may have replaced a version since the lists were read: read them again, once.
  rm -f "$CACHE/apt/$1/updated"
  try_fetch "$@" || cannot_build "apt could not download: ${*:2}"
}

# resolve PACKAGE...: the names of these i386 packages and of all they depend on, sorted. Fails if apt knows no way.
resolve() {
  refresh_lists i386
  private_apt i386 apt-get -s -qq install --no-install-recommends "$@" >"$WORK/resolved" || return 1
  awk '/^Inst /{print $2}' "$WORK/resolved" | sort
}

# depends_on PATTERN PACKAGE: the first dependency of PACKAGE that matches, for "latest version" packages.
depends_on() {
  refresh_lists i386
  private_apt i386 apt-cache depends "$2" 2>/dev/null | sed -n "s/^ *Depends: \($1\)\$/\1/p" | head -n 1
}

# record_packages FILE DEB...: what an image was made of: the means to build the same bytes again.
record_packages() {
  local out=$1
  shift
  (cd "$CACHE/debs" && sha256sum -- "${@##*/}") >"$out"
}
