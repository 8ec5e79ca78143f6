#!/bin/bash
# The BIOS images that every machine boots by, from Debian's seabios package. Run by guests/build.sh.
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=guests/lib/apt.sh
. "$LIB/apt.sh"

deb=$(fetch i386 seabios)
dpkg-deb -x "$deb" "$WORK/seabios"
mkdir -p "$STAGE/bios"
cp "$WORK/seabios/usr/share/seabios/bios.bin" "$STAGE/bios/seabios.bin"
cp "$WORK/seabios/usr/share/seabios/vgabios-stdvga.bin" "$STAGE/bios/vgabios.bin"
