/* Calls to the platform, and the life of a guest from its first instruction to its last. */
#include "sdk.h"

struct call_block {
    uint32_t op;
    int32_t status;
    uint64_t arg[4];
    uint64_t ret[2];
    uint64_t reserved;
};

_Static_assert(sizeof(struct call_block) == 64, "call block layout");

#define INFO_MAGIC 0x49504B55u
#define CALL_BLOCKS ((volatile struct call_block *)0xFC000)
#define DOORBELL ((volatile uint32_t *)0xFE008)
#define RANDOM_MAX 4096u

struct uk_cpu uk_cpus[UK_MAX_VCPUS];

int main(int argc, char **argv);

struct uk_result uk_call(enum uk_op op, uint64_t arg0, uint64_t arg1)
{
    volatile struct call_block *block = &CALL_BLOCKS[uk_cpu_index()];
    block->op = op;
    block->arg[0] = arg0;
    block->arg[1] = arg1;
    block->arg[2] = 0;
    block->arg[3] = 0;

    /* The hypervisor decodes this instruction, so it is a plain store; and the platform may read or write any of our memory. */
    __asm__ volatile("movl %1, %0" : "=m"(*DOORBELL) : "r"(0) : "memory");

    struct uk_result result = { .status = block->status };
    if (result.status == 0) {
        result.ret[0] = block->ret[0];
        result.ret[1] = block->ret[1];
    }
    return result;
}

/* For calls whose arguments are known to be right: a platform that refuses them is not the one in the contract. */
static struct uk_result call_or_abort(enum uk_op op, uint64_t arg0, uint64_t arg1)
{
    struct uk_result result = uk_call(op, arg0, arg1);
    if (result.status != 0)
        uk_abort(-result.status);
    return result;
}

static _Noreturn void end(enum uk_op op, uint64_t arg0, uint64_t arg1)
{
    uk_call(op, arg0, arg1);
    /* Neither call returns; a platform that lets it happen must not see us run on. */
    __builtin_trap();
}

_Noreturn void uk_stop(enum uk_stop_reason reason, int error)
{
    uk_flush();
    end(UK_OP_STOP, reason, (uint64_t)error & 0xFF);
}

_Noreturn void uk_abort(int error)
{
    uk_stop(UK_STOP_EXP, error);
}

_Noreturn void uk_power_off(void)
{
    uk_flush();
    end(UK_OP_POWER_OFF, 0, 0);
}

_Noreturn void uk_exit(int code)
{
    uk_flush();
    call_or_abort(UK_OP_EXIT_CODE, (uint64_t)(int64_t)code, 0);
    call_or_abort(UK_OP_INIT_LEVEL, UK_LEVEL_SYSTEM, 1);
    uk_stop(UK_STOP_OK, 0);
}

int uk_become_template(void)
{
    uk_flush();
    return uk_call(UK_OP_TEMPLATE, 0, 0).status;
}

int uk_fork(uint8_t child_uuid[16])
{
    uk_flush();
    struct uk_result result = uk_call(UK_OP_FORK, (uintptr_t)child_uuid, 0);
    return result.status != 0 ? result.status : (int)result.ret[0];
}

struct uk_time uk_clock(void)
{
    struct uk_result result = call_or_abort(UK_OP_CLOCK, 0, 0);
    return (struct uk_time){ .monotonic_ns = result.ret[0], .wall_ns = result.ret[1] };
}

uint32_t uk_wait(uint64_t deadline_ns, uint32_t events)
{
    return (uint32_t)call_or_abort(UK_OP_WAIT, deadline_ns, events).ret[0] & events;
}

uint64_t uk_tsc_khz(void)
{
    static uint64_t measured;
    uint64_t khz = uk_info()->tsc_khz;
    if (khz == 0)
        khz = __atomic_load_n(&measured, __ATOMIC_RELAXED);
    if (khz != 0)
        return khz;

    uint64_t tsc = uk_rdtsc(), start = uk_clock().monotonic_ns;
    uk_wait(start + 10000000, 0);
    uint64_t elapsed = uk_clock().monotonic_ns - start;
    khz = (uk_rdtsc() - tsc) * 1000000 / elapsed;
    khz = khz != 0 ? khz : 1;
    __atomic_store_n(&measured, khz, __ATOMIC_RELAXED);
    return khz;
}

void uk_random(void *bytes, size_t length)
{
    for (char *to = bytes; length != 0;) {
        uint64_t filled = call_or_abort(UK_OP_RANDOM, (uintptr_t)to, length < RANDOM_MAX ? length : RANDOM_MAX).ret[0];
        if (filled == 0 || filled > length)
            uk_abort(UK_EPROTO);
        to += filled;
        length -= filled;
    }
}

const char *uk_getenv(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = (char **)uk_info()->envp; *entry != NULL; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

int uk_wake(uint32_t index)
{
    return uk_call(UK_OP_WAKE, index, 0).status;
}

int uk_cpu_start(uint32_t index, void (*function)(void *arg), void *arg)
{
    if (index == 0 || index >= uk_info()->vcpus || function == NULL)
        return -UK_EINVAL;
    if (!uk_cpu_idle(index))
        return -UK_EBUSY;
    uk_cpus[index].arg = arg;
    __atomic_store_n(&uk_cpus[index].function, function, __ATOMIC_RELEASE);
    return uk_wake(index);
}

bool uk_cpu_idle(uint32_t index)
{
    return __atomic_load_n(&uk_cpus[index].function, __ATOMIC_ACQUIRE) == NULL;
}

static _Noreturn void serve(struct uk_cpu *cpu)
{
    for (;;) {
        uk_wait(UK_NEVER, UK_EVENT_WAKE);
        /* A wake may also be left over from what ran here before. */
        void (*function)(void *) = __atomic_load_n(&cpu->function, __ATOMIC_ACQUIRE);
        if (function == NULL)
            continue;
        function(cpu->arg);
        uk_flush();
        __atomic_store_n(&cpu->function, NULL, __ATOMIC_RELEASE);
    }
}

_Noreturn void uk_enter(const volatile struct uk_info *info, uint64_t index)
{
    struct uk_cpu *cpu = &uk_cpus[index];
    cpu->index = (uint32_t)index;
    __asm__ volatile("wrgsbase %0" : : "r"(cpu) : "memory");
    if (index != 0)
        serve(cpu);

    if (info->magic != INFO_MAGIC || info->version >> 16 != UK_ABI_MAJOR)
        uk_abort(UK_EPROTO);
    call_or_abort(UK_OP_INIT_LEVEL, UK_LEVEL_EARLY, 0);
    uk_heap_init();
    call_or_abort(UK_OP_INIT_LEVEL, UK_LEVEL_SYSTEM, 0);
    call_or_abort(UK_OP_INIT_LEVEL, UK_LEVEL_APP, 0);
    uk_exit(main((int)info->argc, (char **)info->argv));
}
