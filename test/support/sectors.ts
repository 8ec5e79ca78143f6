/** Boot sectors small enough to write by hand: 16-bit code, as the comments say. */
const SECTOR = 512;
const DISK = 1 << 20;

/** A disk of 1 MiB that starts with this code. */
function bootable(...code: readonly number[]): Uint8Array<ArrayBuffer> {
  const disk = new Uint8Array(DISK);
  disk.set(code);
  disk.set([0x55, 0xaa], SECTOR - 2);
  return disk;
}

/** Says `R` on COM1, then sends back whatever comes. */
const ECHO = [
  0xba, 0xf8, 0x03, //       mov dx, 0x3f8
  0xb0, 0x52, //             mov al, 'R'
  0xee, //                   out dx, al
  0xba, 0xfd, 0x03, // next: mov dx, 0x3fd
  0xec, //                   in al, dx
  0xa8, 0x01, //             test al, 1
  0x74, 0xf8, //             jz next
  0xba, 0xf8, 0x03, //       mov dx, 0x3f8
  0xec, //                   in al, dx
  0xee, //                   out dx, al
  0xeb, 0xf1, //             jmp next
];

/** Says `R`, then sends on to COM1 what is typed on the keyboard, as the BIOS understands it. */
const KEYS = [
  ...ECHO.slice(0, 6),
  0xb4, 0x00, //       next: mov ah, 0
  0xcd, 0x16, //             int 0x16
  0xba, 0xf8, 0x03, //       mov dx, 0x3f8
  0xee, //                   out dx, al
  0xeb, 0xf6, //             jmp next
];

/** Fills 64000 dots of video memory with their number, modulo 256. */
const FILL = [
  0xb8, 0x00, 0xa0, //       mov ax, 0xa000
  0x8e, 0xc0, //             mov es, ax
  0x31, 0xff, //             xor di, di
  0x89, 0xf8, //       next: mov ax, di
  0xaa, //                   stosb
  0x81, 0xff, 0x00, 0xfa, // cmp di, 64000
  0x75, 0xf7, //             jne next
];

/** Stays in text mode; a serial echo. */
export const echoDisk = (): Uint8Array<ArrayBuffer> => bootable(...ECHO);

export const keyboardDisk = (): Uint8Array<ArrayBuffer> => bootable(...KEYS);

/** 320x200 in 256 colours, as games had it; then the echo. */
export const mode13Disk = (): Uint8Array<ArrayBuffer> => bootable(
  0xb8, 0x13, 0x00, //       mov ax, 0x13
  0xcd, 0x10, //             int 0x10
  ...FILL, ...ECHO);

/** 640x480 in 256 colours by VESA's BIOS calls: the first hundred lines are filled; then the echo. */
export const vesaDisk = (): Uint8Array<ArrayBuffer> => bootable(
  0xb8, 0x02, 0x4f, //       mov ax, 0x4f02
  0xbb, 0x01, 0x01, //       mov bx, 0x101
  0xcd, 0x10, //             int 0x10
  ...FILL, ...ECHO);

/** The first colours of the VGA's palette, RGB, as v86 widens their six bits to eight. */
export const VGA_COLOURS: readonly (readonly [number, number, number])[] = [
  [0, 0, 0], [0, 0, 168], [0, 168, 0], [0, 168, 168], [168, 0, 0], [168, 0, 168], [168, 87, 0], [168, 168, 168],
  [87, 87, 87], [87, 87, 255], [87, 255, 87], [87, 255, 255], [255, 87, 87], [255, 87, 255], [255, 255, 87], [255, 255, 255],
];
