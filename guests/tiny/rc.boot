#!/bin/sh
# The whole start of the system. The small kernel comes here with only /dev mounted, Debian's with all three.
[ -d /proc/self ] || mount -t proc proc /proc
[ -d /sys/class ] || mount -t sysfs sys /sys
echo 4 >/proc/sys/kernel/printk # errors show on the console from here on
mount -o remount,noatime /
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
hostname -F /etc/hostname
echo "GUEST-READY $(cat /proc/uptime)" >/dev/console
