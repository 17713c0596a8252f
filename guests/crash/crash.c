/* crash KIND [N]: ends in one particular way. Says so first, so that whoever reads the log knows it was meant. */
#include "unikraft.h"

#define RING0 0x1000ul
#define NOT_MAPPED 0x10000000000ul /* above the heap window */

static const int constant = 1;
static unsigned char data[16] = { 0xC3 };

/* The compiler must neither see through these accesses nor use that they cannot end well. */
static void *hide(const void *address)
{
    __asm__ volatile("" : "+r"(address));
    return (void *)address;
}

static int divide_by_zero(int n)
{
    __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0));
    return n;
}

static int undefined_instruction(int n)
{
    __asm__ volatile("ud2");
    return n;
}

static int read_unmapped(int n)
{
    return *(volatile int *)hide((void *)NOT_MAPPED) + n;
}

static int write_unmapped(int n)
{
    *(volatile int *)hide((void *)NOT_MAPPED) = n;
    return 0;
}

static int write_readonly(int n)
{
    *(volatile int *)hide(&constant) = n;
    return 0;
}

static int execute_data(int n)
{
    ((void (*)(void))hide(data))();
    return n;
}

static int overflow_stack(int n)
{
    volatile int frame[64];
    frame[n & 63] = n;
    int (*self)(int) = hide(overflow_stack);
    return self(n + 1) + frame[n & 63];
}

static _Noreturn int exhaust_memory(int n)
{
    (void)n;
    for (;;)
        *(volatile char *)uk_alloc_pages(1) = 1;
}

static int general_protection(int n)
{
    __asm__ volatile("hlt");
    return n;
}

static int noncanonical(int n)
{
    return *(volatile int *)hide((void *)(1ul << 63)) + n;
}

static int read_ring0(int n)
{
    return *(volatile int *)hide((void *)RING0) + n;
}

static int divide_x87(int n)
{
    uint16_t unmasked = 0x37B; /* zero-divide */
    __asm__ volatile("fldcw %0\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait" : : "m"(unmasked));
    return n;
}

static int divide_sse(int n)
{
    uint32_t unmasked = 0x1D80; /* zero-divide */
    float one = 1, zero = 0;
    __asm__ volatile("ldmxcsr %1\n\tdivss %2, %0" : "+x"(one) : "m"(unmasked), "x"(zero));
    return n;
}

static int misalign(int n)
{
    __asm__ volatile("pushfq\n\torl $0x40000, (%%rsp)\n\tpopfq\n\tmovl (%0), %%eax" /* alignment check */
                     : : "r"(hide(data + 1)) : "eax", "cc", "memory");
    return n;
}

static int breakpoint(int n)
{
    __asm__ volatile("int3");
    return n;
}

static int single_step(int n)
{
    __asm__ volatile("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tnop" : : : "cc", "memory"); /* trap flag */
    return n;
}

static void undefined_on_secondary(void *arg)
{
    (void)arg;
    __asm__ volatile("ud2");
}

static int crash_secondary(int n)
{
    if (uk_cpu_start(uk_info()->vcpus - 1, undefined_on_secondary, NULL) != 0)
        return n;
    for (;;)
        uk_wait(UK_NEVER, UK_EVENT_WAKE);
}

static _Noreturn int abort_with(int n)
{
    uk_abort(n);
}

static _Noreturn int exit_with(int n)
{
    uk_exit(n);
}

static int return_with(int n)
{
    return n;
}

static _Noreturn int loop(int n)
{
    (void)n;
    for (;;)
        __asm__ volatile("");
}

static _Noreturn int vanish(int n)
{
    (void)n;
    uk_power_off();
}

static int system_call(int n)
{
    __asm__ volatile("syscall" : : "a"(n) : "rcx", "r11", "memory");
    return n;
}

static int jump_to_null(int n)
{
    ((void (*)(void))hide(NULL))();
    return n;
}

static _Noreturn int ignore_stop(int n)
{
    (void)n;
    for (;;)
        uk_wait(UK_NEVER, UK_EVENT_WAKE);
}

static void await_stop(void)
{
    while (!uk_stop_requested())
        uk_wait(UK_NEVER, UK_EVENT_STOP_REQUESTED);
}

static int crash_on_stop(int n)
{
    await_stop();
    return undefined_instruction(n);
}

static _Noreturn int exit_on_stop(int n)
{
    await_stop();
    uk_exit(n);
}

static const struct {
    const char *name;
    int (*run)(int n);
    int n; /* when none is given */
} kinds[] = {
    { "div0", divide_by_zero, 0 },
    { "ud", undefined_instruction, 0 },
    { "read-unmapped", read_unmapped, 0 },
    { "write-unmapped", write_unmapped, 0 },
    { "write-readonly", write_readonly, 0 },
    { "exec-data", execute_data, 0 },
    { "stack", overflow_stack, 0 },
    { "oom", exhaust_memory, 0 },
    { "gp", general_protection, 0 },
    { "noncanonical", noncanonical, 0 },
    { "read-ring0", read_ring0, 0 },
    { "x87", divide_x87, 0 },
    { "sse", divide_sse, 0 },
    { "misalign", misalign, 0 },
    { "breakpoint", breakpoint, 0 },
    { "single-step", single_step, 0 },
    { "secondary", crash_secondary, 64 }, /* needs two vCPUs */
    { "abort", abort_with, UK_EIO },
    { "exit", exit_with, 1 },
    { "return", return_with, 1 },
    { "loop", loop, 0 },
    { "vanish", vanish, 0 },
    { "syscall", system_call, 0 },
    { "jump-null", jump_to_null, 0 },
    { "ignore-stop", ignore_stop, 0 },
    { "crash-on-stop", crash_on_stop, 0 },
    { "exit-on-stop", exit_on_stop, 1 },
};

#define KINDS (sizeof kinds / sizeof kinds[0])

int main(int argc, char **argv)
{
    size_t kind = 0;
    while (kind < KINDS && (argc < 2 || strcmp(argv[1], kinds[kind].name) != 0))
        kind++;

    int n = kind < KINDS ? kinds[kind].n : 0;
    if (kind == KINDS || argc > 3 || (argc == 3 && !uk_parse_i32(argv[2], &n))) {
        uk_printf("usage: crash KIND [N], KIND one of");
        for (kind = 0; kind < KINDS; kind++)
            uk_printf(" %s", kinds[kind].name);
        uk_printf("\n");
        return 64;
    }

    uk_printf("crashing: %s\n", kinds[kind].name);
    return kinds[kind].run(n);
}
