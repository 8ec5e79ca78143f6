# shellcheck shell=bash
# What a guest boots by: a kernel, perhaps an initial RAM disk, and a command line. Made once, kept in the cache, and
# the same for all guests.

# Every guest's root file system has this UUID, every disk this id: one more input that never changes.
export ROOT_UUID=d15cd15c-0086-4086-8086-d15cd15cd15c
export DISK_ID=0xd15c0086

# Parts of the Debian kernel package that the initial RAM disk takes its modules from.
MODULE_DIRS=(block crypto lib drivers/ata drivers/block drivers/scsi drivers/virtio fs/ext4 fs/jbd2 fs/mbcache.ko)

# Start-up work of Debian's kernel that no guest needs; together it is a quarter of the boot. (The tracing ones depend
# on each other: all of them or none.)
SKIPPED_INITCALLS=crypto_kdf108_init,load_system_certificate_list,slab_sysfs_init,digsig_init,init_encrypted
SKIPPED_INITCALLS+=,tracer_init_tracefs,init_kprobe_trace,init_blk_tracer
# loglevel: without ACPI tables Debian's kernel complains a little; rc.boot turns error messages on when it is up.
COMMON_FLAGS="rw console=tty0 console=ttyS0 quiet loglevel=3 nokaslr mitigations=off tsc=reliable random.trust_cpu=on"

export BOOT_KERNEL BOOT_INITRD BOOT_CMDLINE
# boot_payload KERNEL: sets BOOT_KERNEL, BOOT_INITRD (empty: none) and BOOT_CMDLINE for own, lz4 or stock.
boot_payload() {
  if [ "$1" = own ]; then
    BOOT_KERNEL=$OWN_KERNEL BOOT_INITRD=
    BOOT_CMDLINE="root=PARTUUID=${DISK_ID#0x}-01 rootwait $COMMON_FLAGS"
    BOOT_PACKAGES=()
    return
  fi
  local package debs payload
  package=$(depends_on 'linux-image-[0-9][^ ]*-686' linux-image-686)
  [ -n "$package" ] || cannot_build "its apt sources offer no i386 kernel (Debian 12 is the last release with one)."
  debs=$(fetch i386 "$package" busybox-static)
  mapfile -t BOOT_PACKAGES <<<"$debs"
  payload=$CACHE/boot/$1-$(fingerprint "$LIB"/{boot.sh,init.sh,initrd.mjs,repack.mjs,lz4-stub.asm})
  payload+=-$(basename -a "${BOOT_PACKAGES[@]}" | sha256sum | cut -c1-16)
  if [ ! -d "$payload" ]; then
    make_payload "$1" "$WORK/payload"
    mkdir -p "$CACHE/boot"
    mv "$WORK/payload" "$payload"
  fi
  BOOT_KERNEL=$payload/vmlinuz BOOT_INITRD=$payload/initrd
  BOOT_CMDLINE="$COMMON_FLAGS cryptomgr.notests noisapnp initcall_blacklist=$SKIPPED_INITCALLS"
}

# make_payload KERNEL DIR: Debian's kernel, repacked for `lz4`, and the initial RAM disk that goes with it.
make_payload() {
  local tree=$WORK/kernel-package version kernel_deb busybox_deb deb
  for deb in "${BOOT_PACKAGES[@]}"; do
    case ${deb##*/} in linux-image-*) kernel_deb=$deb ;; *) busybox_deb=$deb ;; esac
  done
  version=${kernel_deb##*/linux-image-} version=${version%%_*}
  step "unpacking kernel $version"
  mkdir -p "$tree" "$2"
  dpkg-deb --fsys-tarfile "$kernel_deb" |
    tar -x -C "$tree" "./boot/vmlinuz-$version" "${MODULE_DIRS[@]/#/./lib/modules/$version/kernel/}"
  dpkg-deb -x "$busybox_deb" "$tree"

  sed "s/@root_uuid@/$ROOT_UUID/" "$LIB/init.sh" >"$WORK/init"
  node "$LIB/initrd.mjs" "$tree/lib/modules" "$tree/bin/busybox" "$WORK/init" "$WORK/initrd.cpio"
  lz4 -l -12 -q "$WORK/initrd.cpio" "$2/initrd"
  if [ "$1" = lz4 ]; then
    step "repacking the kernel with LZ4"
    nasm -f bin -o "$WORK/stub" "$LIB/lz4-stub.asm"
    node "$LIB/repack.mjs" "$tree/boot/vmlinuz-$version" "$WORK/stub" "$2/vmlinuz"
  else
    cp "$tree/boot/vmlinuz-$version" "$2/vmlinuz"
  fi
}
