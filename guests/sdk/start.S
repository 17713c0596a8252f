/* Every vCPU comes here at the same time: rdi = info page, rsi = index, rsp = top of its own stack, no return address. */
        .section .text.start, "ax", @progbits
        .globl  _start
        .type   _start, @function
_start:
        xorl    %ebp, %ebp
        call    uk_enter
        ud2
        .size   _start, . - _start

        .section .note.GNU-stack, "", @progbits
