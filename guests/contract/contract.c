/*
 * contract: holds the platform, and this SDK, to docs/guest-abi.md from the inside. Prints a line for each check and
 * returns the number of those that failed.
 */
#include "sdk.h"

#define DEVICE 0xFE000ul
#define MS 1000000ul

static unsigned checks, failures;
static const char constant[8] = "constant";
static char scratch[8192];

static void check(const char *name, bool holds)
{
    checks++;
    failures += !holds;
    uk_printf("%s %s\n", holds ? "ok" : "FAILED", name);
}

static void check_status(const char *name, int32_t expected, enum uk_op op, uint64_t arg0, uint64_t arg1)
{
    int32_t status = uk_call(op, arg0, arg1).status;
    check(name, status == expected);
    if (status != expected)
        uk_printf("  status %d, expected %d\n", status, expected);
}

static uint32_t device_read(uint64_t offset)
{
    uint32_t value;
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(DEVICE + offset));
    return value;
}

static void check_cpu(void)
{
    uint32_t mxcsr;
    uint16_t control, cs, ss;
    uint64_t fs;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(control));
    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    __asm__ volatile("mov %%ss, %0" : "=r"(ss));
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    check("mxcsr is 0x1F80", mxcsr == 0x1F80);
    check("x87 control word is 0x37F", control == 0x37F);
    check("cs is 0x33 and ss 0x2B", cs == 0x33 && ss == 0x2B);
    check("fs base is 0", fs == 0);
    check("stack is aligned", (uintptr_t)__builtin_frame_address(0) % 16 == 0);

    __asm__ volatile("wrfsbase %0" : : "r"(scratch));
    scratch[3] = 42;
    uint8_t byte;
    __asm__ volatile("movb %%fs:3, %0" : "=q"(byte) : : "memory");
    uk_call(UK_OP_NOP, 0, 0);
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    check("fs base can be set and survives a call", byte == 42 && fs == (uintptr_t)scratch);

    uint32_t low, high, ecx, eax = 1;
    __asm__ volatile("cpuid" : "+a"(eax), "=c"(ecx) : : "ebx", "edx");
    check("cpuid knows xsave", (ecx & 1u << 26) != 0 && (ecx & 1u << 27) != 0);
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    check("x87 and SSE are enabled", (low & 3) == 3);
    if (low & 4) {
        uint64_t lanes[4] = { 1, 2, 3, 4 }, sums[4];
        __asm__ volatile("vmovdqu %1, %%ymm0\n\tmovl $0, (%2)\n\tvpaddq %%xmm0, %%xmm0, %%xmm1\n\t"
                         "vmovdqu %%ymm0, %0" : "=m"(sums) : "m"(lanes), "r"(DEVICE + 12) : "xmm0", "xmm1", "memory");
        check("AVX works, and ymm survives an exit", memcmp(sums, lanes, sizeof sums) == 0);
    }
}

static void check_info(void)
{
    const volatile struct uk_info *info = uk_info();
    uint8_t zero[16] = { 0 };
    check("info: version is 1.x", info->version >> 16 == UK_ABI_MAJOR);
    check("info: 1 to 8 vCPUs", info->vcpus >= 1 && info->vcpus <= UK_MAX_VCPUS);
    check("info: argv ends with NULL", info->argc >= 1 && ((char **)info->argv)[info->argc] == NULL);
    check("info: heap ends with RAM", info->heap_end == info->ram_bytes && info->heap_start < info->heap_end);
    check("info: heap starts on a page", info->heap_start % UK_PAGE_SIZE == 0 && info->heap_end % UK_PAGE_SIZE == 0);
    check("info: stack size is 256 KiB", info->stack_size == 262144);
    check("info: generation id is set", memcmp((const void *)info->generation_id, zero, 16) != 0);
    check("info: instance uuid is an RFC 9562 one", (info->instance_uuid[8] & 0xC0) == 0x80);
    check("info: the first stack is before the heap",
          (uintptr_t)zero < info->heap_start - UK_PAGE_SIZE && (uintptr_t)zero > (uintptr_t)scratch);
}

static void check_device(void)
{
    check("device: magic", device_read(0) == 0x44504B55);
    check("device: version", device_read(4) == uk_info()->version);
    check("device: doorbell reads all ones", device_read(8) == UINT32_MAX);
    check("device: unknown register reads all ones", device_read(0xFFC) == UINT32_MAX);
    uint16_t narrow;
    __asm__ volatile("movw (%1), %0" : "=r"(narrow) : "r"(DEVICE));
    check("device: narrow read gives all ones", narrow == UINT16_MAX);
    volatile int32_t *status = (volatile int32_t *)(0xFC004 + 64ul * uk_cpu_index());
    *status = 12345;
    __asm__ volatile("movl $0, (%0)\n\tmovb $0, (%1)" : : "r"(DEVICE + 12), "r"(DEVICE + 8) : "memory");
    check("device: other and narrow writes are ignored", *status == 12345);
}

static void check_calls(void)
{
    uint64_t heap_end = uk_info()->heap_end, own = (uintptr_t)scratch;
    check_status("NOP", 0, UK_OP_NOP, 0, 0);
    check_status("unknown call", -UK_ENOSYS, (enum uk_op)999, 0, 0);
    check_status("INIT_LEVEL 128", -UK_EINVAL, UK_OP_INIT_LEVEL, 128, 0);
    check_status("INIT_LEVEL, shutting-down 2", -UK_EINVAL, UK_OP_INIT_LEVEL, 127, 2);
    check_status("STOP with reason 256", -UK_EINVAL, UK_OP_STOP, 256, 0);
    check_status("STOP with errno 256", -UK_EINVAL, UK_OP_STOP, 0, 256);
    check_status("RANDOM of 4097 bytes", -UK_EINVAL, UK_OP_RANDOM, own, 4097);
    check_status("WAKE of a vCPU there is not", -UK_EINVAL, UK_OP_WAKE, uk_info()->vcpus, 0);

    check_status("CONSOLE_WRITE of nothing", 0, UK_OP_CONSOLE_WRITE, own, 0);
    check_status("CONSOLE_WRITE from the null page", -UK_EFAULT, UK_OP_CONSOLE_WRITE, 0, 1);
    check_status("CONSOLE_WRITE from ring 0's memory", -UK_EFAULT, UK_OP_CONSOLE_WRITE, 0x1000, 1);
    check_status("CONSOLE_WRITE from the info page", -UK_EFAULT, UK_OP_CONSOLE_WRITE, 0xF0000, 1);
    check_status("CONSOLE_WRITE from the device", -UK_EFAULT, UK_OP_CONSOLE_WRITE, DEVICE, 4);
    check_status("CONSOLE_WRITE from behind RAM", -UK_EFAULT, UK_OP_CONSOLE_WRITE, heap_end, 1);
    check_status("CONSOLE_WRITE across the end of RAM", -UK_EFAULT, UK_OP_CONSOLE_WRITE, heap_end - 1, 2);
    check_status("CONSOLE_WRITE that wraps around", -UK_EFAULT, UK_OP_CONSOLE_WRITE, UINT64_MAX, 2);
    check_status("CONSOLE_WRITE across a guard page", -UK_EFAULT, UK_OP_CONSOLE_WRITE, uk_info()->heap_start - 1, 2);
    check_status("CONSOLE_WRITE from an address that is none", -UK_EFAULT, UK_OP_CONSOLE_WRITE, 1ul << 63, 1);
    check_status("FORK without room for the uuid", -UK_EFAULT, UK_OP_FORK, heap_end - 15, 0);
    check_status("RANDOM into read-only memory", -UK_EFAULT, UK_OP_RANDOM, (uintptr_t)constant, 8);
    check_status("RANDOM into code", -UK_EFAULT, UK_OP_RANDOM, (uintptr_t)check_calls, 8);
    check_status("CONSOLE_READ into read-only memory", -UK_EFAULT, UK_OP_CONSOLE_READ, (uintptr_t)constant, 8);
    check("read-only memory is as it was", memcmp(constant, "constant", 8) == 0);

    memset(scratch, 0, sizeof scratch);
    struct uk_result random = uk_call(UK_OP_RANDOM, own, 4096);
    unsigned zeros = 0;
    for (unsigned i = 0; i < 4096; i++)
        zeros += scratch[i] == 0;
    check("RANDOM fills all it was given", random.status == 0 && random.ret[0] == 4096 && zeros < 64);
    check("RANDOM writes no byte more", scratch[4096] == 0);
    uk_random(scratch + 4093, 4099);
    check("RANDOM differs each time", memcmp(scratch, scratch + 4096, 32) != 0);
}

static void check_time(void)
{
    struct uk_time first = uk_clock(), second = uk_clock();
    check("CLOCK never goes back", second.monotonic_ns >= first.monotonic_ns);
    check("CLOCK counts from boot", first.monotonic_ns < 3600000 * MS);
    check("CLOCK knows the wall clock", first.wall_ns > 900000000000 * MS);
    check("tsc_khz is 0 or plausible", uk_info()->tsc_khz == 0
          || (uk_info()->tsc_khz >= 100000 && uk_info()->tsc_khz <= 10000000));
    uint64_t tsc = uk_rdtsc();
    uk_call(UK_OP_NOP, 0, 0);
    check("rdtsc counts while outside", uk_rdtsc() > tsc);

    uint64_t start = uk_clock().monotonic_ns;
    check("WAIT until a deadline reports nothing", uk_wait(start + 20 * MS, 0) == 0);
    check("WAIT sleeps as long as asked", uk_clock().monotonic_ns >= start + 20 * MS);
    check("WAIT with a deadline that has passed returns", uk_wait(0, UK_EVENT_STOP_REQUESTED | UK_EVENT_WAKE) == 0);

    check("WAKE of oneself", uk_wake(uk_cpu_index()) == 0 && uk_wait(UK_NEVER, UK_EVENT_WAKE) == UK_EVENT_WAKE);
    check("WAIT clears the WAKE it reports", uk_wait(0, UK_EVENT_WAKE) == 0);
    uk_wake(uk_cpu_index());
    uk_wait(0, UK_EVENT_STOP_REQUESTED);
    check("WAIT keeps the WAKE it was not asked for", uk_wait(0, UK_EVENT_WAKE) == UK_EVENT_WAKE);
}

static void check_memory(void)
{
    const uint64_t *heap = uk_alloc_pages(0);
    uint64_t words = (uk_info()->heap_end - (uintptr_t)heap) / sizeof *heap, found = 0;
    for (uint64_t i = 0; i < words; i += UK_PAGE_SIZE / sizeof *heap / 4)
        found |= heap[i];
    check("heap is zero-filled", found == 0);
    volatile char *last = (volatile char *)uk_info()->heap_end - 1;
    *last = 1;
    check("the last byte of RAM can be written", *last == 1);
    *last = 0;

    char *blocks[20];
    bool whole = true;
    for (unsigned i = 0; i < 20; i++) {
        blocks[i] = uk_alloc((size_t)1 << i);
        whole &= (uintptr_t)blocks[i] % 16 == 0;
        memset(blocks[i], (int)i + 1, (size_t)1 << i);
    }
    for (unsigned i = 0; i < 20; i++)
        whole &= blocks[i][0] == (char)(i + 1) && blocks[i][((size_t)1 << i) - 1] == (char)(i + 1);
    check("uk_alloc gives distinct aligned blocks", whole);
    uk_free(blocks[5]);
    uk_free(blocks[19]);
    check("uk_free makes small and large blocks reusable", uk_alloc(100) != blocks[5] && uk_alloc(32) == blocks[5]
          && uk_alloc((size_t)1 << 19) == blocks[19]);

    memcpy(scratch, "0123456789", 11);
    memmove(scratch + 2, scratch, 8);
    check("memmove up", memcmp(scratch, "0101234567", 11) == 0);
    memmove(scratch, scratch + 2, 8);
    check("memmove down", memcmp(scratch, "0123456767", 11) == 0);
    check("strings", strcmp("a", "b") < 0 && strcmp("b", "a") > 0 && strcmp("ab", "ab") == 0 && strncmp("abc", "abd", 2) == 0
          && strlen("four") == 4 && *strchr("four", 'u') == 'u' && strchr("four", 'x') == NULL);

    uint64_t number = 7;
    int32_t small = 7;
    check("numbers", uk_parse_u64("18446744073709551615", &number) && number == UINT64_MAX
          && !uk_parse_u64("18446744073709551616", &number) && !uk_parse_u64("", &number) && !uk_parse_u64("1x", &number)
          && uk_parse_i32("-2147483648", &small) && small == INT32_MIN && !uk_parse_i32("2147483648", &small)
          && !uk_parse_i32("-", &small));
}

static struct {
    uint32_t started; /* bits by index */
    uint32_t ran;
    uint32_t wrong;
    uint32_t turns;
} secondary;

static void run_on_secondary(void *arg)
{
    uint32_t index = uk_cpu_index();
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    uint64_t stack_size = uk_info()->stack_size, heap = uk_info()->heap_start;
    /* Stacks lie below the heap, the last vCPU's highest. */
    uintptr_t top = heap - UK_PAGE_SIZE - (uk_info()->vcpus - 1 - index) * (stack_size + UK_PAGE_SIZE);
    if (index != (uintptr_t)arg || frame >= top || frame < top - stack_size)
        __atomic_fetch_or(&secondary.wrong, 1u << index, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&secondary.started, 1u << index, __ATOMIC_SEQ_CST);
    for (int turn = 0; turn < 20; turn++) {
        uk_wait(UK_NEVER, UK_EVENT_WAKE);
        __atomic_fetch_add(&secondary.turns, 1, __ATOMIC_SEQ_CST);
        uk_wake(0);
    }
    __atomic_fetch_or(&secondary.ran, 1u << index, __ATOMIC_SEQ_CST);
    uk_printf("vCPU %u was here\n", index);
}

static void check_cpus(void)
{
    check("vCPU 0 cannot be started", uk_cpu_start(0, run_on_secondary, NULL) == -UK_EINVAL);
    check("a vCPU there is not cannot be started",
          uk_cpu_start(uk_info()->vcpus, run_on_secondary, NULL) == -UK_EINVAL);
    for (uint32_t cpu = 1; cpu < uk_info()->vcpus; cpu++) {
        secondary.turns = 0;
        check("vCPU starts", uk_cpu_start(cpu, run_on_secondary, (void *)(uintptr_t)cpu) == 0);
        check("busy vCPU cannot be started", uk_cpu_start(cpu, run_on_secondary, NULL) == -UK_EBUSY);
        /* A wake that came earlier would be one with that of the start. */
        while ((__atomic_load_n(&secondary.started, __ATOMIC_SEQ_CST) & 1u << cpu) == 0)
            __builtin_ia32_pause();
        for (uint32_t turn = 0; turn < 20; turn++) {
            uk_wake(cpu);
            while (__atomic_load_n(&secondary.turns, __ATOMIC_SEQ_CST) == turn)
                uk_wait(UK_NEVER, UK_EVENT_WAKE);
        }
        while (!uk_cpu_idle(cpu))
            __builtin_ia32_pause();
        check("vCPU ran on its own stack, index and wakes",
              (secondary.ran & 1u << cpu) != 0 && secondary.wrong == 0 && secondary.turns == 20);
    }
}

static void check_format(void)
{
    uk_printf("[%d|%5d|%-5d|%05d|%u|%lu|%x|%X|%016lx|%s|%7s|%-7s|%.2s|%c|%%|%p|%zu|%.3d|%*d]\n", -12, -12, -12, -12, 7u,
              UINT64_MAX, 0xabcu, 0xabcu, 0x1234ul, "text", "text", "text", "text", 'c', (void *)0x10, sizeof(int), 5, 4, 9);
}

static void check_random(void)
{
    /* RFC 8439, section 2.3.2. */
    uint32_t key[8];
    const uint32_t counter_and_nonce[4] = { 1, 0x09000000, 0x4A000000, 0 };
    const uint32_t expected[16] = {
        0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3, 0xC7F4D1C7, 0x0368C033, 0x9AAA2204, 0x4E6CD4C3,
        0x466482D2, 0x09AA9F07, 0x05D7C214, 0xA2028BD9, 0xD19C12B5, 0xB94E16DE, 0xE883D0CB, 0x4E3C50A2,
    };
    uint32_t block[16];
    for (uint32_t i = 0; i < 8; i++)
        key[i] = i * 0x04040404 + 0x03020100;
    uk_chacha20_block(key, counter_and_nonce, block);
    check("ChaCha20 is that of RFC 8439", memcmp(block, expected, sizeof block) == 0);

    uint64_t numbers[64];
    bool distinct = true;
    for (unsigned i = 0; i < 64; i++) {
        numbers[i] = uk_random_u64();
        for (unsigned j = 0; j < i; j++)
            distinct = distinct && numbers[i] != numbers[j];
    }
    check("64 random numbers are distinct", distinct);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    check_cpu();
    check_info();
    check_device();
    check_calls();
    check_time();
    check_memory();
    check_cpus();
    check_random();
    check_format();
    uk_printf("%u checks, %u failed\n", checks, failures);
    return (int)failures;
}
