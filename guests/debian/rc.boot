#!/bin/dash
# The whole start of the system, with busybox's tools: one program that is in memory already.
# The small kernel comes here with only /dev mounted, Debian's with all three.
bb=/bin/busybox
[ -d /proc/self ] || $bb mount -t proc proc /proc
[ -d /sys/class ] || $bb mount -t sysfs sys /sys
echo 4 >/proc/sys/kernel/printk # errors show on the console from here on
$bb mount -o remount,noatime /
$bb mkdir -p /dev/pts /dev/shm
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs tmpfs /dev/shm
$bb mount -t tmpfs tmpfs /run
$bb mount -t tmpfs tmpfs /tmp
$bb hostname -F /etc/hostname
read -r up </proc/uptime
echo "GUEST-READY $up" >/dev/console
