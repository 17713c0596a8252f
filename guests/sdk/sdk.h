/* What the parts of the SDK share and guests do not see. */
#ifndef UNIKRAFT_SDK_H
#define UNIKRAFT_SDK_H

#include "unikraft.h"

#define UK_LINE_SIZE 1024u

/* State of one vCPU. Its gs base points here, so that uk_cpu_index reads the first member. */
struct uk_cpu {
    uint32_t index;
    uint32_t line_length;
    void (*function)(void *arg);
    void *arg;
    char line[UK_LINE_SIZE];
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct uk_cpu, index) == 0, "uk_cpu_index reads gs:0");

extern struct uk_cpu uk_cpus[UK_MAX_VCPUS];

static inline struct uk_cpu *uk_this_cpu(void)
{
    return &uk_cpus[uk_cpu_index()];
}

void uk_heap_init(void);

/* The block function of RFC 8439, for a key and the four words behind it. */
void uk_chacha20_block(const uint32_t key[8], const uint32_t counter_and_nonce[4], uint32_t block[16]);

#endif
