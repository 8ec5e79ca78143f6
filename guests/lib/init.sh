#!/bin/busybox sh
# shellcheck shell=dash
# /init of the guests' initial RAM disk: loads the driver of the bus that the root disk is on, and hands over to it.
# initrd.mjs puts in place of each @module that module and all it depends on.
bb=/bin/busybox
insert() { for module; do $bb insmod "/lib/$module.ko"; done; }
load_ide() { insert @ata_piix @sd_mod; }
find_root() { root=$($bb findfs UUID=@root_uuid@ 2>/dev/null); }

$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev

# v86 always shows an IDE controller, and looking for its disks takes half a second: not if there is a virtio disk.
# Otherwise the search goes on while ext4 loads.
bus=ide
case $($bb cat /sys/bus/pci/devices/*/device) in *0x1042* | *0x1001*) bus=virtio ;; esac
if [ $bus = virtio ]; then insert @virtio_pci @virtio_blk; else load_ide; fi
insert @crc32c_generic @ext4
if [ $bus = virtio ] && ! find_root; then load_ide; fi
tries=0
while ! find_root && [ $tries -lt 500 ]; do
  $bb usleep 10000
  tries=$((tries + 1))
done

if ! $bb mount -t ext4 -o rw,noatime "$root" /mnt; then
  echo "No root file system found; a shell in the initial RAM disk:"
  exec $bb sh
fi
for dir in proc sys dev; do $bb mount --move /$dir /mnt/$dir; done
exec $bb switch_root /mnt /sbin/init
