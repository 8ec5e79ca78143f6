; Stands where Debian's kernel has its XZ decompressor: unpacks an LZ4 payload to 16 MiB and enters the kernel there.
; XZ costs 2.8 s of the boot in v86, this 0.2 s.
;
; Entered by the 32-bit boot protocol: esi = boot_params, flat segments, interrupts off. Position independent.
; The payload that follows is "LZ4 legacy" blocks: u32 compressed size, data; a size of 0 ends it.

KERNEL_AT equ 0x1000000

        bits 32
        org 0
start:  cld
        mov ebp, esi
        call .here
.here:  pop esi
        add esi, payload - .here
        mov edi, KERNEL_AT

block:  lodsd
        test eax, eax
        jz done
        lea edx, [esi + eax]            ; where this block ends

sequence:
        movzx ebx, byte [esi]           ; token: literals in the high half, match length - 4 in the low
        inc esi
        mov ecx, ebx
        shr ecx, 4
        call length
        rep movsb
        cmp esi, edx
        jae block                       ; a block's last sequence has no match
        lodsw
        movzx eax, ax                   ; distance
        mov ecx, ebx
        and ecx, 15
        call length
        add ecx, 4
        push esi
        mov esi, edi
        sub esi, eax
        rep movsb                       ; byte by byte: source and target may overlap
        pop esi
        jmp sequence

; length: 15 in ecx means that bytes follow which add to it, up to and including the first below 255.
length: cmp ecx, 15
        jne .done
        push eax
.more:  movzx eax, byte [esi]
        inc esi
        add ecx, eax
        cmp al, 255
        je .more
        pop eax
.done:  ret

done:   mov esi, ebp
        xor ebx, ebx
        xor ebp, ebp
        xor edi, edi
        mov eax, KERNEL_AT
        jmp eax

        align 16, db 0
payload:
