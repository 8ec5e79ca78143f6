#!/bin/bash
# The debian guest: a small Debian straight from its packages. Run by guests/build.sh, under fakeroot.
#
# No i386 program runs here, so the packages' maintainer scripts do not either: the files are unpacked in order, dpkg's
# database is written from the packages' own control files, and configure() does what of the scripts a guest needs.
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
for part in apt boot image; do
  # shellcheck source=/dev/null
  . "$LIB/$part.sh"
done

ROOT_MIB=1500
# usr-is-merged stands in for usrmerge and the 7 MB of perl which that would bring.
PACKAGES=('?essential' usr-is-merged apt nano python3-minimal less procps e2fsprogs mount busybox-static)
root=$WORK/root

# open_package DEB DIR: its control files as DIR/control/NAME/*, its contents as DIR/data/NAME.tar, both decompressed.
open_package() {
  local name=${1##*/}
  name=${name%%_*}
  dpkg-deb -e "$1" "$2/control/$name"
  dpkg-deb --fsys-tarfile "$1" >"$2/data/$name.tar"
  tar -tf "$2/data/$name.tar" >"$2/control/$name/list"
}

# open_packages DEB...: decompresses on all processors (and without fakeroot, which has no part in it).
open_packages() {
  mkdir -p "$WORK/packages"/{control,data}
  export -f open_package
  printf '%s\0' "$@" | env -u LD_PRELOAD xargs -0 -P "$(nproc)" -I{} bash -ec 'open_package "$@"' _ {} "$WORK/packages"
}

# unpack: one tar over all packages in the order of their names, so that the last word on a directory's mode is always
# the same package's.
unpack() {
  local dir
  mkdir -p "$root"/usr/{bin,sbin,lib}
  for dir in bin sbin lib; do ln -s usr/$dir "$root/$dir"; done
  # Archives behind each other: tar goes on after each one's end.
  cat "$WORK"/packages/data/*.tar | tar -x --ignore-zeros -p --numeric-owner -C "$root" --keep-directory-symlink \
    --exclude-from=<(sed -n 's/^path-exclude=/./p' "$GUESTS/debian/dpkg.cfg" | grep -v doc)
  find "$root/usr/share/doc" -type f ! -name copyright -delete
}

# give FILE TEMPLATE: a file that a maintainer script would have copied from its template.
give() { if [ ! -e "$root$1" ] && [ -e "$root$2" ]; then cp "$root$2" "$root$1"; fi; }

# choose LINK PROGRAM: what update-alternatives would have linked.
choose() { if [ ! -e "$root$1" ] && [ -e "$root/usr/bin/$2" ]; then ln -s "$2" "$root$1"; fi; }

configure() {
  local file applet
  mkdir -p "$root"/{mnt,media,opt,srv} "$root"/usr/local/{bin,sbin,lib,share,src}
  give /etc/passwd /usr/share/base-passwd/passwd.master
  give /etc/group /usr/share/base-passwd/group.master
  for file in nsswitch.conf profile motd; do
    give /etc/$file /usr/share/base-files/$file
    give /etc/$file /usr/share/libc-bin/$file
  done
  sed -i 's/^root:\*:/root:x:/' "$root/etc/passwd"
  echo '_apt:x:42:65534::/nonexistent:/usr/sbin/nologin' >>"$root/etc/passwd"
  # root has no password, nobody else can log in.
  sed 's/^\([^:]*\):.*/\1:*:19675:0:99999:7:::/; s/^root:\*:/root::/' "$root/etc/passwd" >"$root/etc/shadow"
  chmod 640 "$root/etc/shadow"
  chown 0:42 "$root/etc/shadow"
  choose /usr/bin/awk mawk
  choose /usr/bin/pager less
  choose /usr/bin/editor nano
  choose /usr/bin/sh dash

  for applet in init poweroff reboot halt; do ln -sf ../bin/busybox "$root/usr/sbin/$applet"; done
  printf 'debian\n' >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 debian\n' >"$root/etc/hosts"
  printf '/dev/root / ext4 rw,noatime 0 1\n' >"$root/etc/fstab"
  ln -sf ../proc/self/mounts "$root/etc/mtab"
  cp "$GUESTS/debian/inittab" "$root/etc/inittab"
  # Bracketed paste would put control codes around each prompt.
  printf 'set enable-bracketed-paste off\n' >"$root/etc/inputrc"
  cat "$GUESTS/debian/profile" >>"$root/etc/profile"
  install -m 755 "$GUESTS/debian/rc.boot" "$root/etc/rc.boot"
  install -D -m 644 "$GUESTS/debian/dpkg.cfg" "$root/etc/dpkg/dpkg.cfg.d/no-documentation"
  ldconfig -r "$root" -X
  rm -f "$root/var/cache/ldconfig/aux-cache"
}

need nasm:nasm lz4:lz4 xz:xz-utils mke2fs:e2fsprogs,libext2fs2,libss2,libcom-err2
step "choosing packages"
names=$(resolve "${PACKAGES[@]}") || cannot_build "its apt sources do not offer the packages of this guest."
if [ -n "$WITH" ]; then
  # shellcheck disable=SC2046 # package names: one word each
  names=$(resolve "${PACKAGES[@]}" $(tr , ' ' <<<"$WITH")) || { echo "Cannot add $WITH to the guest: see apt's words above." >&2; exit 1; }
fi
# shellcheck disable=SC2086 # likewise
list=$(fetch i386 $names)
mapfile -t debs <<<"$list"
boot_payload "$KERNEL"

step "unpacking ${#debs[@]} packages"
open_packages "${debs[@]}"
unpack
step "configuring"
node "$GUESTS/debian/dpkg-database.mjs" "$WORK/packages/control" "$root"
configure
rm -rf "$WORK/packages"
write_image "$IMAGE" "$root" $ROOT_MIB
record_packages "$STAGE/$IMAGE.packages" "${debs[@]}" "${BOOT_PACKAGES[@]}"
