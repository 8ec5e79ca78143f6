# shellcheck shell=bash
# A whole disk from a directory: MBR loader, kernel and initial RAM disk raw before partition 1, ext4 root. The command
# line is sector 1. No mounts, no root: mke2fs fills the file system itself.

CMDLINE_LBA=1
KERNEL_LBA=64

sectors() { echo $((($(stat -c %s "$1") + 511) / 512)); }

# place FILE LBA IMAGE
place() { dd if="$1" of="$3" bs=512 seek="$2" conv=notrunc status=none; }

# write_boot_area IMAGE ROOT_MIB: everything before partition 1; creates IMAGE at its full size. Sets ROOT_LBA.
write_boot_area() {
  local image=$1 root_sectors=$(($2 * 2048)) initrd_lba initrd_bytes=0 end
  # The loader reads 127 sectors at a time: leave a gap behind each part for the last read to run into.
  end=$((KERNEL_LBA + $(sectors "$BOOT_KERNEL") + 128))
  initrd_lba=$end
  if [ -n "$BOOT_INITRD" ]; then
    initrd_bytes=$(stat -c %s "$BOOT_INITRD")
    initrd_lba=$(((end + 127) / 128 * 128))
    end=$((initrd_lba + $(sectors "$BOOT_INITRD") + 128))
  fi
  ROOT_LBA=$(((end + 2047) / 2048 * 2048))
  nasm -f bin -o "$WORK/mbr" -DKERNEL_LBA=$KERNEL_LBA -DCMDLINE_LBA=$CMDLINE_LBA -DDISK_ID="$DISK_ID" \
    -DINITRD_LBA=$initrd_lba -DINITRD_BYTES="$initrd_bytes" -DROOT_LBA=$ROOT_LBA -DROOT_SECTORS=$root_sectors \
    "$LIB/mbr.asm"
  [ ${#BOOT_CMDLINE} -lt 512 ] || { echo "The kernel's command line does not fit into a sector." >&2; exit 1; }
  printf '%s\0' "$BOOT_CMDLINE" >"$WORK/cmdline"
  rm -f "$image"
  truncate -s $(((ROOT_LBA + root_sectors) * 512)) "$image"
  place "$WORK/mbr" 0 "$image"
  place "$WORK/cmdline" $CMDLINE_LBA "$image"
  place "$BOOT_KERNEL" $KERNEL_LBA "$image"
  if [ -n "$BOOT_INITRD" ]; then place "$BOOT_INITRD" "$initrd_lba" "$image"; fi
}

# reset_times FILE_SYSTEM: mke2fs copies the times of the host's files; each inode gets the one time there is here.
# (It copies files in the order of their names, so the inode numbers are the same each time.)
reset_times() {
  local last
  last=$(dumpe2fs -h "$1" 2>/dev/null | awk '/^Inode count/{all=$3} /^Free inodes/{free=$3} END{print all-free}')
  awk -v last="$last" -v time="@$SOURCE_DATE_EPOCH" 'BEGIN {
    for (inode = 11; inode <= last; inode++) {
      printf "sif <%d> mtime %s\nsif <%d> ctime %s\nsif <%d> atime %s\nsif <%d> crtime %s\n", \
        inode, time, inode, time, inode, time, inode, time
      printf "sif <%d> mtime_extra 0\nsif <%d> ctime_extra 0\nsif <%d> atime_extra 0\nsif <%d> crtime_extra 0\n", \
        inode, inode, inode, inode
    }
  }' >"$WORK/times"
  debugfs -w -f "$WORK/times" "$1" >/dev/null 2>&1
}

# write_root IMAGE ROOT_MIB DIR: the ext4 file system in partition 1, from DIR.
write_root() {
  local file_system="$1?offset=$((ROOT_LBA * 512))"
  export MKE2FS_CONFIG=$LIB/mke2fs.conf E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH
  mke2fs -q -F -t ext4 -m 0 -L "$LABEL" -U "$ROOT_UUID" -d "$3" \
    -E "offset=$((ROOT_LBA * 512)),hash_seed=$ROOT_UUID,nodiscard,root_owner=0:0" "$1" "${2}M" >"$WORK/mke2fs.log" 2>&1 ||
    { cat "$WORK/mke2fs.log" >&2; exit 1; }
  reset_times "$file_system"
  e2fsck -fn "$file_system" >"$WORK/e2fsck.log" 2>&1 || { cat "$WORK/e2fsck.log" >&2; exit 1; }
}

# write_image NAME DIR ROOT_MIB: DIR as a bootable disk, STAGE/NAME.qcow2.
write_image() {
  local raw=$WORK/disk.raw
  step "writing the file system ($(du -sm "$2" | cut -f1) MB)"
  write_boot_area "$raw" "$3"
  write_root "$raw" "$3" "$2"
  step "compressing the image"
  node "$LIB/qcow2.mjs" "$raw" "$STAGE/$1.qcow2"
}
