/* exits N: times N round trips out of the guest and back, then prints each in cycles of the time stamp counter. */
#include "unikraft.h"

#define WARM_UP 1000

int main(int argc, char **argv)
{
    uint64_t count;
    if (argc != 2 || !uk_parse_u64(argv[1], &count) || count == 0 || count > uk_info()->ram_bytes / sizeof(uint32_t)) {
        uk_printf("usage: exits N\n");
        return 64;
    }

    uint32_t *cycles = uk_alloc(count * sizeof *cycles);
    memset(cycles, 0, count * sizeof *cycles);
    for (int i = 0; i < WARM_UP; i++)
        uk_call(UK_OP_NOP, 0, 0);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = uk_rdtsc();
        uk_call(UK_OP_NOP, 0, 0);
        uint64_t elapsed = uk_rdtsc() - start;
        cycles[i] = elapsed < UINT32_MAX ? (uint32_t)elapsed : UINT32_MAX;
    }

    uk_printf("tsc_khz=%lu\n", uk_tsc_khz());
    for (uint64_t i = 0; i < count; i++)
        uk_printf("%u\n", cycles[i]);
    uk_printf("done\n");
    return 0;
}
