; A guest in one sector, for quick tests of disk controllers: no operating system, the same I/O every time.
;
; Writes BLOCKS blocks of 4 KiB, each 64 KiB after the one before, then reads them all back and sums them up; then it
; writes the first block once more with other contents and reads it again, so that a stale cache shows. On COM1:
;   BOOT               it runs
;   SUM xxxxxxxx       what it has read; guest.ts says what it must be
;   DONE               and it halts with interrupts off; or
;   ERR                a BIOS call failed; it halts too
; Needs 16 MiB of RAM (for the BIOS) and a disk of 8 MiB.

BLOCKS      equ 64
FIRST       equ 2048            ; sectors
STRIDE      equ 128
SECTORS     equ 8               ; a block
OUT_SEGMENT equ 0x800           ; what is written
IN_SEGMENT  equ 0x900           ; what is read

        bits 16
        org 0x7c00
start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl
        mov si, hello
        call print

        mov bp, BLOCKS
.write: call write
        add dword [packet.lba], STRIDE
        dec bp
        jnz .write

        mov dword [packet.lba], FIRST
        mov bp, BLOCKS
.read:  call read
        add dword [packet.lba], STRIDE
        dec bp
        jnz .read

        mov dword [packet.lba], FIRST
        inc dword [seed]
        call write
        call read

        mov si, sum_is
        call print
        mov ebx, [sum]
        mov cx, 8
.digit: rol ebx, 4
        mov al, bl
        and al, 15
        cmp al, 10
        sbb al, 0x69            ; the shortest way from 0-15 to a hexadecimal digit
        das
        or al, 0x20             ; in lower case (digits have this bit anyway)
        call send
        loop .digit
        mov si, done
        call print

halt:   cli
        hlt
        jmp halt

; write: fills a block with numbers that follow from its place and `seed`, and writes it.
write:  mov di, OUT_SEGMENT * 16
        mov cx, SECTORS * 128
        mov eax, [packet.lba]
        add eax, [seed]
.fill:  stosd
        imul eax, eax, 1664525
        add eax, 1013904223
        loop .fill
        mov word [packet.segment], OUT_SEGMENT
        mov ah, 0x43
        jmp transfer

; read: reads a block and takes it into `sum`: rotate by one, exclusive or with the next number.
read:   mov word [packet.segment], IN_SEGMENT
        mov ah, 0x42
        call transfer
        mov si, IN_SEGMENT * 16
        mov cx, SECTORS * 128
.sum:   lodsd
        rol dword [sum], 1
        xor [sum], eax
        loop .sum
        ret

transfer:
        mov si, packet
        mov dl, [drive]
        mov al, 0
        int 0x13
        jc .failed
        ret
.failed:
        mov si, error
        call print
        jmp halt

; print: the string at si, to COM1.
print:  lodsb
        test al, al
        jz .done
        call send
        jmp print
.done:  ret

send:   push ax
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        pop ax
        mov dx, 0x3f8
        out dx, al
        ret

hello:  db "BOOT", 10, 0
sum_is: db "SUM ", 0
done:   db 10, "DONE", 10, 0
error:  db "ERR", 10, 0
drive:  db 0

        align 4, db 0
sum:    dd 0
seed:   dd 0
packet: db 16, 0
        dw SECTORS, 0
.segment: dw 0
.lba:   dq FIRST

        times 446 - ($ - $$) db 0
        times 64 db 0           ; no partitions
        dw 0xaa55
