/*
 * counter: a guest whose state is easy to check from outside, for branching, checkpoints and measurements.
 *
 * It makes a random nonce at boot, which lives in RAM only, and ticks: by the clock or on request. Every tick dirties pages.
 */
#include "unikraft.h"

#define LINE_SIZE 1024
#define DEFAULT_ARENA_MB 8
#define CATCH_UP_NS 10000000ul
#define WORK_BATCH 64

static struct {
    uint64_t period_ms;
    uint64_t pages;
    uint64_t arena_mb;
    uint64_t ticks; /* 0: forever */
    uint64_t rate; /* pages a second; 0: not given */
    uint64_t ballast_mb;
    bool random;
    bool touch;
    bool quiet;
    bool busy;
    bool smp;
    bool work;
    bool watch;
} options = { .period_ms = 1000, .pages = 10, .arena_mb = DEFAULT_ARENA_MB };

/* What a clone inherits. Each page of the arena begins with the number of the round that dirtied it last. */
static struct {
    uint64_t nonce;
    uint32_t tick;
    uint64_t round;
    uint64_t random;
    uint64_t cursor;
    uint64_t last_tsc;
    uint64_t gap_cycles;
    bool watch_anew;
    uint64_t worked, work_since; /* since the last `work` */
    char *arena;
    uint64_t arena_pages;
    char *mark;
    uint64_t *counts[UK_MAX_VCPUS];
} state;

/* What the host looks at itself, because being asked for it would be a gap. */
static struct {
    volatile uint64_t since; /* not 0 once the gaps before the last `watch` are forgotten */
    volatile uint64_t gap_cycles; /* the largest since */
    volatile uint64_t samples; /* of the time stamp counter, ever */
} watched;

/* Tells the vCPU that only watches to begin anew. */
static volatile bool watcher_forgets;

/* ---- Dirtying memory -------------------------------------------------------------------------------------------- */

static uint64_t next_random(void)
{
    /* xorshift64: its state is never 0. */
    state.random ^= state.random << 13;
    state.random ^= state.random >> 7;
    state.random ^= state.random << 17;
    return state.random;
}

static volatile uint64_t *page_stamp(uint64_t page)
{
    return (volatile uint64_t *)(state.arena + page * UK_PAGE_SIZE);
}

/* Dirties pages none of which was dirtied in this round before. */
static void dirty(uint64_t count)
{
    for (; count != 0; count--) {
        if (options.random) {
            state.cursor = next_random() % state.arena_pages;
            while (*page_stamp(state.cursor) == state.round)
                state.cursor = (state.cursor + 1) % state.arena_pages;
        }
        *page_stamp(state.cursor) = state.round;
        state.cursor = (state.cursor + 1) % state.arena_pages;
    }
}

/* ---- Gaps ------------------------------------------------------------------------------------------------------- */

/* Reads the time stamp counter; what passed since the last sample, beyond what was planned, is a gap. */
static uint64_t sample(uint64_t planned_cycles)
{
    uint64_t now = uk_rdtsc(), passed = now - state.last_tsc;
    /* A clone may start on a counter that is behind. */
    if (now > state.last_tsc && passed > planned_cycles) {
        if (passed - planned_cycles > state.gap_cycles)
            state.gap_cycles = passed - planned_cycles;
        if (!options.watch && passed - planned_cycles > watched.gap_cycles)
            watched.gap_cycles = passed - planned_cycles;
    }
    state.last_tsc = now;
    if (!options.watch)
        watched.samples++;
    return now;
}

static uint64_t cycles_of_ns(uint64_t ns)
{
    uint64_t khz = uk_tsc_khz();
    return ns / 1000000 * khz + ns % 1000000 * khz / 1000000;
}

static uint64_t us_of_cycles(uint64_t cycles)
{
    uint64_t khz = uk_tsc_khz();
    return cycles / khz * 1000 + cycles % khz * 1000 / khz;
}

static uint64_t ns_of_cycles(uint64_t cycles)
{
    uint64_t khz = uk_tsc_khz();
    return cycles / khz * 1000000 + cycles % khz * 1000000 / khz;
}

/* On a vCPU of its own: sees how long the whole machine stands still while vCPU 0 sleeps. */
static void watch(void *unused)
{
    (void)unused;
    uint64_t last = uk_rdtsc();
    while (!uk_stop_requested()) {
        uint64_t now = uk_rdtsc();
        if (now > last && now - last > watched.gap_cycles)
            watched.gap_cycles = now - last;
        last = now;
        watched.samples++;
        if (watcher_forgets) {
            watcher_forgets = false;
            watched.gap_cycles = 0;
            watched.since = 1;
        }
    }
}

/* ---- Ticks ------------------------------------------------------------------------------------------------------ */

static void count_forever(void *count)
{
    while (!uk_stop_requested())
        ++*(volatile uint64_t *)count;
}

static void count_wakes(void *count)
{
    while ((uk_wait(UK_NEVER, UK_EVENT_WAKE | UK_EVENT_STOP_REQUESTED) & UK_EVENT_STOP_REQUESTED) == 0)
        ++*(volatile uint64_t *)count;
}

static void start_cpus(void)
{
    for (uint32_t cpu = 1; cpu < uk_info()->vcpus; cpu++) {
        state.counts[cpu] = uk_alloc_pages(1);
        int error = uk_cpu_start(cpu, options.busy ? count_forever : count_wakes, state.counts[cpu]);
        if (error != 0)
            uk_abort(-error);
    }
}

static void start_watcher(void)
{
    int error = uk_cpu_start(1, watch, NULL);
    if (error != 0)
        uk_abort(-error);
}

/* The first 8 bytes in their order, so that a line shows how generation_id is written. */
static uint64_t generation(void)
{
    return __builtin_bswap64(*(const volatile uint64_t *)uk_info()->generation_id);
}

/* Returns false when it was the last one. */
static bool tick(bool print)
{
    state.tick++;
    if (options.rate == 0) {
        state.round++;
        dirty(options.pages);
    }
    if (options.smp && !options.busy)
        for (uint32_t cpu = 1; cpu < uk_info()->vcpus; cpu++)
            uk_wake(cpu);

    if (print) {
        uk_printf("nonce=%016lx tick=%u gap_us=%lu gen=%016lx", state.nonce, state.tick,
                  us_of_cycles(state.gap_cycles), generation());
        if (options.smp) {
            uk_printf(" cpus=");
            for (uint32_t cpu = 1; cpu < uk_info()->vcpus; cpu++)
                uk_printf(cpu == 1 ? "%lu" : ",%lu", *(volatile uint64_t *)state.counts[cpu]);
        }
        uk_printf("\n");
    }
    return options.ticks == 0 || state.tick < options.ticks;
}

/* ---- Console ---------------------------------------------------------------------------------------------------- */

static void become_template(void)
{
    int error = uk_become_template();
    if (error != 0)
        uk_printf("template error=%d\n", -error);
    else
        uk_printf("cloned gen=%016lx\n", generation());
}

static void fork(void)
{
    uint8_t uuid[16];
    int side = uk_fork(uuid);
    if (side < 0) {
        uk_printf("fork error=%d\n", -side);
        return;
    }
    uk_printf(side == 0 ? "fork parent child=" : "fork child uuid=");
    for (unsigned i = 0; i < sizeof uuid; i++)
        uk_printf(i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
    if (side != 0)
        uk_printf(" gen=%016lx", generation());
    uk_printf("\n");
}

/* Forgets the gaps up to here, those of saying so included. */
static void watch_anew(void)
{
    watched.since = 0;
    uk_printf("watching_at=%lu tsc_khz=%lu\n", (uint64_t)&watched, uk_tsc_khz());
    if (options.watch)
        watcher_forgets = true;
    else
        state.watch_anew = true;
}

static void print_work(void)
{
    uk_printf("work=%lu ns=%lu\n", state.worked, ns_of_cycles(uk_rdtsc() - state.work_since));
    state.worked = 0;
    state.work_since = uk_rdtsc();
}

/* Dirties the pages of a tick and tells how long a write took on average. */
static void time_writes(void)
{
    uint64_t pages = options.pages != 0 ? options.pages : 1;
    state.round++;
    uint64_t start = uk_rdtsc();
    dirty(pages);
    uint64_t cycles = uk_rdtsc() - start;
    uk_printf("write_ns=%lu\n", ns_of_cycles(cycles) / pages);
}

static bool obey(const char *line)
{
    int32_t code;
    if (strcmp(line, "tick") == 0)
        return tick(true);
    if (strcmp(line, "template") == 0)
        become_template();
    else if (strcmp(line, "fork") == 0)
        fork();
    else if (strcmp(line, "watch") == 0)
        watch_anew();
    else if (strcmp(line, "work") == 0)
        print_work();
    else if (strcmp(line, "write") == 0)
        time_writes();
    else if (strcmp(line, "draw") == 0)
        uk_printf("draw=%016lx\n", uk_random_u64());
    else if (strcmp(line, "time") == 0) {
        struct uk_time time = uk_clock();
        uk_printf("time monotonic_ns=%lu wall_ns=%lu\n", time.monotonic_ns, time.wall_ns);
    }
    else if (strcmp(line, "show") == 0)
        uk_printf("mark=%s\n", state.mark);
    else if (strncmp(line, "mark ", 5) == 0)
        memcpy(state.mark, line + 5, strlen(line + 5) + 1);
    else if (strncmp(line, "exit ", 5) == 0 && uk_parse_i32(line + 5, &code))
        uk_exit(code);
    else
        uk_printf("unknown: %s\n", line);
    return true;
}

static bool obey_input(void)
{
    char line[LINE_SIZE];
    while (uk_read_line(line, sizeof line))
        if (!obey(line))
            return false;
    if (state.watch_anew) {
        state.watch_anew = false;
        watched.gap_cycles = 0;
        state.last_tsc = uk_rdtsc();
        watched.since = 1;
    }
    return true;
}

/* ---- The two ways to pass the time ------------------------------------------------------------------------------ */

static void run_asleep(void)
{
    uint64_t period_ns = options.period_ms * 1000000;
    uint64_t now = uk_clock().monotonic_ns;
    uint64_t deadline = period_ns != 0 ? now + period_ns : UK_NEVER;

    for (;;) {
        sample(0);
        uint32_t events = uk_wait(deadline, UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT);
        /* Sleeping as planned is no gap; being woken late is one. */
        if (events == 0)
            sample(deadline > now ? cycles_of_ns(deadline - now) : 0);
        else
            state.last_tsc = uk_rdtsc();

        if (events & UK_EVENT_STOP_REQUESTED)
            return;
        if ((events & UK_EVENT_CONSOLE_INPUT) && !obey_input())
            return;
        if (events == 0 && !tick(!options.quiet))
            return;

        now = uk_clock().monotonic_ns;
        if (events == 0) {
            deadline += period_ns;
            /* Ticks that were missed are not made up for. */
            if (deadline < now)
                deadline = now + period_ns;
        }
    }
}

static void run_busy(void)
{
    uint64_t period = cycles_of_ns(options.period_ms * 1000000);
    uint64_t page = options.rate != 0 ? cycles_of_ns(1000000000) / options.rate : 0;
    uint64_t catch_up = cycles_of_ns(CATCH_UP_NS);
    uint64_t now = sample(0), last = now, next_tick = now + period, next_page = now;

    while (!uk_stop_requested()) {
        now = sample(0);
        if (now < last) {
            next_tick = now + period;
            next_page = now;
        }
        last = now;

        if (options.rate != 0 && now >= next_page) {
            state.round++;
            dirty(1);
            next_page = now - next_page < catch_up ? next_page + page : now;
        }
        if (options.work) {
            state.round++;
            dirty(WORK_BATCH);
            state.worked += WORK_BATCH;
        }
        if (uk_info()->events & UK_EVENT_CONSOLE_INPUT) {
            /* A gap between the last sample and here is none of what follows. */
            sample(0);
            if (!obey_input())
                return;
        }
        if (period != 0 && now >= next_tick) {
            next_tick = now + period;
            if (!tick(!options.quiet))
                return;
        }
    }
}

/* ---- Options ---------------------------------------------------------------------------------------------------- */

static int usage(const char *what)
{
    uk_printf("counter: bad argument '%s'\n"
              "usage: counter [--period-ms N] [--pages N] [--arena-mb N] [--random] [--touch] [--ticks N] [--quiet]\n"
              "               [--busy] [--rate N] [--work] [--smp] [--watch] [--ballast-mb N]\n", what);
    return 64;
}

static bool parse(const char *name, const char *value, int *used)
{
    const struct { const char *name; bool *flag; } flags[] = {
        { "--random", &options.random }, { "--touch", &options.touch }, { "--quiet", &options.quiet },
        { "--busy", &options.busy }, { "--smp", &options.smp }, { "--work", &options.work },
        { "--watch", &options.watch },
    };
    const struct { const char *name; uint64_t *number; uint64_t max; } numbers[] = {
        { "--period-ms", &options.period_ms, 1000000000 }, { "--pages", &options.pages, 1u << 28 },
        { "--arena-mb", &options.arena_mb, 1u << 20 }, { "--ticks", &options.ticks, UINT32_MAX },
        { "--rate", &options.rate, 1000000000 }, { "--ballast-mb", &options.ballast_mb, 1u << 20 },
    };

    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *flags[i].flag = true;
            *used = 1;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint64_t number;
        if (strcmp(name, numbers[i].name) == 0 && value != NULL && uk_parse_u64(value, &number)
            && number <= numbers[i].max) {
            *numbers[i].number = number;
            *used = 2;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    for (int i = 1, used; i < argc; i += used)
        if (!parse(argv[i], argv[i + 1], &used))
            return usage(argv[i]);
    if (options.rate != 0 && !options.busy)
        return usage("--rate without --busy");
    if (options.work && (!options.busy || options.rate != 0))
        return usage("--work without --busy, or with --rate");
    if (options.watch && (options.busy || options.smp || uk_info()->vcpus < 2))
        return usage("--watch with --busy, with --smp or on one vCPU");

    uk_random(&state.nonce, sizeof state.nonce);
    state.random = state.nonce | 1;
    state.arena_pages = options.arena_mb << 8;
    uint64_t least = options.work && options.pages < WORK_BATCH ? WORK_BATCH : options.pages;
    if (state.arena_pages < least)
        state.arena_pages = least;
    if (state.arena_pages == 0)
        state.arena_pages = 1;
    state.arena = uk_alloc_pages(state.arena_pages);
    state.mark = uk_alloc_pages(1);
    if (options.touch) {
        state.round++;
        dirty(state.arena_pages);
    }
    if (options.ballast_mb != 0)
        memset(uk_alloc_pages(options.ballast_mb << 8), 1, options.ballast_mb << 20);
    if (options.smp)
        start_cpus();
    if (options.watch)
        start_watcher();

    state.work_since = uk_rdtsc();
    state.last_tsc = uk_rdtsc();
    if (options.busy)
        run_busy();
    else
        run_asleep();

    if (uk_stop_requested())
        uk_printf("stopping\n");
    return 0;
}
