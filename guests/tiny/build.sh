#!/bin/bash
# The tiny guest: a Linux kernel and busybox. Run by guests/build.sh, under fakeroot: every file belongs to root.
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
for part in apt boot image; do
  # shellcheck source=/dev/null
  . "$LIB/$part.sh"
done

ROOT_MIB=64
root=$WORK/root

# link_applets: a link for each busybox command. The names are read out of the program's table of them, since an i386
# program is not run here.
link_applets() {
  local applet
  tr '\0' '\n' <"$root/bin/busybox" | sed -n '/^acpid$/,/^zcat$/p' | grep -x '[a-z0-9_-]*' | sort -u >"$WORK/applets"
  [ "$(wc -l <"$WORK/applets")" -gt 200 ] || { echo "Found no list of applets in busybox." >&2; exit 1; }
  while read -r applet; do
    [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
  done <"$WORK/applets"
  ln -s busybox "$root/bin/["
  ln -s ../bin/busybox "$root/sbin/init"
}

configure() {
  printf 'root::0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
  printf 'tiny\n' >"$root/etc/hostname"
  ln -s ../proc/self/mounts "$root/etc/mtab"
  cp "$GUESTS/tiny/"{inittab,profile} "$root/etc/"
  install -m 755 "$GUESTS/tiny/rc.boot" "$root/etc/rc.boot"
}

need nasm:nasm lz4:lz4 xz:xz-utils mke2fs:e2fsprogs,libext2fs2,libss2,libcom-err2
busybox=$(fetch i386 busybox-static)
boot_payload "$KERNEL"

step "root file system"
mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,tmp,run,root,mnt,var/log,usr/bin,usr/sbin}
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
dpkg-deb --fsys-tarfile "$busybox" | tar -xO ./bin/busybox >"$root/bin/busybox"
chmod 755 "$root/bin/busybox"
link_applets
configure
write_image "$IMAGE" "$root" $ROOT_MIB
record_packages "$STAGE/$IMAGE.packages" "$busybox" "${BOOT_PACKAGES[@]}"
