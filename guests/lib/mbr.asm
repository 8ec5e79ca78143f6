; The whole first sector of a guest's disk: a Linux loader, the partition table and the signature.
;
; It reads the kernel (and the initial RAM disk) from fixed sectors before partition 1 by INT 13h and moves them above
; 1 MiB by INT 15h: no boot menu, no file system, a tenth of a second. See "The Linux/x86 Boot Protocol" for the
; offsets into the kernel's header, here relative to SETUP.
;
; nasm -D KERNEL_LBA= CMDLINE_LBA= INITRD_LBA= INITRD_BYTES= (0: none) DISK_ID= ROOT_LBA= ROOT_SECTORS=

SETUP       equ 0x9000          ; segment of the kernel's real-mode part
HEAP_END    equ 0xde00          ; offsets in that segment
CMDLINE     equ 0xe000
BOUNCE      equ 0x1000          ; segment of the buffer between BIOS reads and high memory
KERNEL_AT   equ 0x100000
INITRD_AT   equ 0x4000000       ; 64 MiB, above the unpacked kernel: an initial RAM disk asks for 96 MiB of RAM
SETUP_MAX   equ 64              ; sectors
CHUNK       equ 127             ; sectors a read: the most every BIOS takes

        bits 16
        org 0x7c00
start:  cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl

; The real-mode part; its own header says how many of the sectors just read belong to it.
        mov word [packet.count], SETUP_MAX
        mov word [packet.segment], SETUP
        mov dword [packet.lba], KERNEL_LBA
        call read
        push word SETUP
        pop es
        mov word [packet.count], 1
        mov word [packet.offset], CMDLINE
        mov dword [packet.lba], CMDLINE_LBA
        call read
        mov byte [es:0x210], 0xff               ; type_of_loader: none of the registered ones
        or byte [es:0x211], 0x80                ; loadflags: the heap may be used
        mov word [es:0x224], HEAP_END           ; heap_end_ptr
        mov dword [es:0x228], SETUP * 16 + CMDLINE

; The protected-mode part.
        movzx eax, byte [es:0x1f1]              ; setup_sects
        add eax, KERNEL_LBA + 1
        mov [packet.lba], eax
        mov ebx, [es:0x1f4]                     ; syssize, in units of 16 bytes
        shl ebx, 4
        mov eax, KERNEL_AT
        call load
%if INITRD_BYTES
        mov dword [es:0x218], INITRD_AT         ; ramdisk_image
        mov dword [es:0x21c], INITRD_BYTES      ; ramdisk_size
        mov dword [packet.lba], INITRD_LBA
        mov ebx, INITRD_BYTES
        mov eax, INITRD_AT
        call load
%endif
        cli
        mov ax, es
        mov ds, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov sp, HEAP_END
        jmp SETUP + 0x20:0

; load: ebx bytes from sector packet.lba to linear address eax, whole chunks at a time. Keeps es.
load:   mov [target.low], ax
        shr eax, 16
        mov [target.middle], al
        mov [target.high], ah
        mov word [packet.count], CHUNK
        mov word [packet.offset], 0
        mov word [packet.segment], BOUNCE
        push es
        push ds
        pop es
.chunk: call read
        mov si, descriptors
        mov cx, CHUNK * 256                     ; in words
        mov ah, 0x87
        int 0x15
        jc fail
        add dword [packet.lba], CHUNK
        add word [target.low], CHUNK * 512
        adc byte [target.middle], 0
        adc byte [target.high], 0
        sub ebx, CHUNK * 512
        ja .chunk
        pop es
        ret

read:   mov si, packet
        mov dl, [drive]
        mov ah, 0x42
        int 0x13
        jc fail
        ret

fail:   mov si, message
.next:  lodsb
        test al, al
        jz $
        mov ah, 0x0e
        int 0x10
        jmp .next

message: db "Boot loader: cannot read the disk", 0
drive:  db 0

        align 4, db 0
packet: db 16, 0                                ; INT 13h, AH=42h
.count: dw 0
.offset: dw 0
.segment: dw 0
.lba:   dq 0

descriptors:                                    ; INT 15h, AH=87h: the third is the source, the fourth the target
        times 16 db 0
        dw 0xffff, (BOUNCE * 16) & 0xffff
        db (BOUNCE * 16) >> 16, 0x93, 0, 0
target: dw 0xffff
.low:   dw 0
.middle: db 0, 0x93, 0
.high:  db 0
        times 16 db 0

        times 440 - ($ - $$) db 0
        dd DISK_ID
        dw 0
        db 0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff       ; bootable, Linux, addressed by LBA only
        dd ROOT_LBA, ROOT_SECTORS
        times 48 db 0
        dw 0xaa55
