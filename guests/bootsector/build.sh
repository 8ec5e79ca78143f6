#!/bin/bash
# The boot-sector guest: bootsector.asm as the first sector of an otherwise empty disk. Run by guests/build.sh.
# shellcheck source=guests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=guests/lib/apt.sh
. "$LIB/apt.sh"

DISK_MIB=8

need nasm:nasm
nasm -f bin -o "$STAGE/bootsector.bin" "$GUESTS/bootsector/bootsector.asm"
cp "$STAGE/bootsector.bin" "$WORK/disk.raw"
truncate -s ${DISK_MIB}M "$WORK/disk.raw"
node "$LIB/qcow2.mjs" "$WORK/disk.raw" "$STAGE/$IMAGE.qcow2"
