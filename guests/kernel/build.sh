#!/bin/bash
# An own small kernel for the guests, from Debian's linux-source: everything a guest of v86 can use is built in and
# nothing else, so there is no initial RAM disk and a shell comes up in about a second.
#
# Run by guests/build.sh for `--kernel own`. Prints the path of the kernel, which stays in the cache: the three to four
# minutes of compiling are spent once for each version of the source and of kernel.config.
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=guests/lib/apt.sh
. "$LIB/apt.sh"

# What to leave in the archive: four fifths of the kernel's source is for hardware that v86 does not have. Kconfig
# files stay, since the configuration reads all of them.
LEAVE_OUT=(
  '*/Documentation/*/*' '*/tools/testing/*' '*/sound/*.[ch]' '*/arch/*/boot/dts/*'
  '*/drivers/gpu/*.[ch]' '*/drivers/media/*.[ch]' '*/drivers/staging/*.[ch]'
  '*/drivers/net/wireless/*.[ch]' '*/drivers/net/ethernet/*.[ch]'
)

# A kernel carries who built it, where and when: always the same here.
export KBUILD_BUILD_TIMESTAMP='Tue Nov 14 22:13:20 UTC 2023' KBUILD_BUILD_USER=disk86 KBUILD_BUILD_HOST=disk86
export KBUILD_BUILD_VERSION=1

kernel_make() {
  make -s -C "$source_dir" O="$build_dir" ARCH=i386 "$@"
}

compile() {
  need lz4:lz4 m4:m4 flex:flex bison:bison bc:bc
  for tool in gcc make perl; do
    command -v "$tool" >/dev/null || cannot_build "compiling a kernel needs $tool (Debian: apt install build-essential)."
  done
  step "unpacking $package"
  mkdir -p "$WORK/kernel" "$build_dir"
  dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/$package.tar.xz" | xz -dc |
    tar -x -C "$WORK/kernel" "${LEAVE_OUT[@]/#/--exclude=}"

  step "configuring"
  kernel_make tinyconfig >"$log" 2>&1
  "$source_dir/scripts/kconfig/merge_config.sh" -m -O "$build_dir" "$build_dir/.config" "$config" >>"$log" 2>&1
  kernel_make olddefconfig >>"$log" 2>&1

  step "compiling on $(nproc) processors"
  kernel_make -j"$(nproc)" bzImage >>"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
}

package=$(depends_on 'linux-source-[0-9.]*' linux-source)
[ -n "$package" ] || cannot_build "its apt sources offer no linux-source."
deb=$(fetch i386 "$package")
config=$GUESTS/kernel/kernel.config
kernel=$CACHE/kernel/$(basename "$deb" .deb)-$(fingerprint "$config" "$GUESTS/kernel/build.sh").bzImage

if [ ! -e "$kernel" ]; then
  source_dir=$WORK/kernel/$package build_dir=$WORK/kernel/build log=$WORK/kernel.log
  compile
  mkdir -p "$CACHE/kernel"
  # WORK is inside CACHE: a rename, so the kernel is there whole or not at all.
  mv "$build_dir/arch/x86/boot/bzImage" "$kernel"
  rm -rf "$WORK/kernel"
  step "kernel done, $(stat -c %s "$kernel") bytes"
fi
echo "$kernel"
