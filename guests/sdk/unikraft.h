/*
 * Unikraft.Platform guest SDK: everything a flat guest needs, and nothing of a C library.
 *
 * A guest is a C program with `int main(int argc, char **argv)`. It runs at ring 3 from its first instruction; there is
 * no kernel below it, so a CPU exception ends the instance. The contract with the platform is docs/guest-abi.md.
 *
 * Leaving the guest is dear (tens of microseconds on some hosts). Functions marked [call] leave it once.
 * Unless said otherwise every function may be used on every vCPU at the same time.
 */
#ifndef UNIKRAFT_H
#define UNIKRAFT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- The contract ---------------------------------------------------------------------------------------------- */

#define UK_ABI_MAJOR 1u
#define UK_PAGE_SIZE 4096u
#define UK_MAX_VCPUS 8u

/* What the platform tells a guest. Read-only; generation_id, instance_uuid and events change while the guest runs. */
struct uk_info {
    uint32_t magic;
    uint32_t version;
    uint64_t ram_bytes;
    uint32_t vcpus;
    uint32_t argc;
    uint64_t argv;
    uint64_t envp;
    uint64_t heap_start;
    uint64_t heap_end;
    uint64_t tsc_khz;
    uint8_t generation_id[16];
    uint8_t instance_uuid[16];
    uint32_t events;
    uint32_t stack_size;
    uint64_t disks; /* from version 1.2 on: VA of disk_count entries */
    uint32_t disk_count;
};

_Static_assert(offsetof(struct uk_info, generation_id) == 64, "info page layout");
_Static_assert(offsetof(struct uk_info, stack_size) == 100, "info page layout");
_Static_assert(offsetof(struct uk_info, disk_count) == 112, "info page layout");

static inline const volatile struct uk_info *uk_info(void)
{
    return (const volatile struct uk_info *)0xF0000;
}

enum uk_op {
    UK_OP_NOP = 0,
    UK_OP_INIT_LEVEL = 1,
    UK_OP_EXIT_CODE = 2,
    UK_OP_STOP = 3,
    UK_OP_POWER_OFF = 4,
    UK_OP_CONSOLE_WRITE = 5,
    UK_OP_CONSOLE_READ = 6,
    UK_OP_WAIT = 7,
    UK_OP_CLOCK = 8,
    UK_OP_RANDOM = 9,
    UK_OP_WAKE = 10,
    UK_OP_TEMPLATE = 11,
    UK_OP_FORK = 12,
};

enum uk_event {
    UK_EVENT_STOP_REQUESTED = 1u << 0,
    UK_EVENT_CONSOLE_INPUT = 1u << 1,
    UK_EVENT_DISK = 1u << 2,
    UK_EVENT_WAKE = 1u << 31,
};

enum uk_stop_reason {
    UK_STOP_OK = 0,
    UK_STOP_EXP = 1,
    UK_STOP_MATH = 2,
    UK_STOP_INVLOP = 3,
    UK_STOP_PGFAULT = 4,
    UK_STOP_SEGFAULT = 5,
    UK_STOP_HWERR = 6,
    UK_STOP_SECERR = 7,
};

/* Linux error numbers, as they appear negated in a status and as they are in a stop code. */
enum uk_errno {
    UK_EIO = 5,
    UK_EAGAIN = 11,
    UK_ENOMEM = 12,
    UK_EFAULT = 14,
    UK_EBUSY = 16,
    UK_ENODEV = 19,
    UK_EINVAL = 22,
    UK_ENOSPC = 28,
    UK_EROFS = 30,
    UK_ENOSYS = 38,
    UK_EPROTO = 71,
};

/* The levels this SDK goes through. When main has returned, the level falls back to UK_LEVEL_SYSTEM with the shutdown
 * bit set: a clean end has the stop code 0x00008200. */
enum uk_level {
    UK_LEVEL_EARLY = 1,
    UK_LEVEL_SYSTEM = 2,
    UK_LEVEL_APP = 127,
};

struct uk_result {
    int32_t status; /* 0 or a negated Linux error number */
    uint64_t ret[2]; /* meaningful when status is 0 */
};

/* [call] Any call by its number, for calls this SDK does not know yet; an unknown one has the status -UK_ENOSYS. */
struct uk_result uk_call(enum uk_op op, uint64_t arg0, uint64_t arg1);

/* ---- Life ------------------------------------------------------------------------------------------------------- */

/* Ends the instance with an exit code, from any vCPU, as returning from main does. */
_Noreturn void uk_exit(int code);

/* Ends the instance without an exit code: stop reason EXP with this error number (0 to 255). */
_Noreturn void uk_abort(int error);

/* Ends the instance without an exit code, for a reason (enum uk_stop_reason) and an error number (0 to 255). */
_Noreturn void uk_stop(enum uk_stop_reason reason, int error);

/* Powers the machine off and says nothing about why. */
_Noreturn void uk_power_off(void);

/* Whether the caller wants the instance to stop. Costs one memory read. */
static inline bool uk_stop_requested(void)
{
    return (uk_info()->events & UK_EVENT_STOP_REQUESTED) != 0;
}

/* The value of an environment variable, or NULL. */
const char *uk_getenv(const char *name);

/* [call] Turns this instance into a template and does not return in it: returns 0 in every instance made from the template, which has another
 * generation_id. When the platform cannot do it, this instance goes on and gets -UK_EBUSY (a snapshot of it is being taken) or
 * -UK_EAGAIN. Sends an unfinished line first. */
int uk_become_template(void);

/* [call] Makes a second instance that continues from here. Returns 0 in this one and 1 in the new one, the child, and in both writes the UUID of
 * the child, in RFC 9562 byte order. When the platform cannot do it, returns -UK_EBUSY (a snapshot of this instance is being taken) or
 * -UK_EAGAIN. Sends an unfinished line first. `child_uuid` lies in the image, a stack or the heap. */
int uk_fork(uint8_t child_uuid[16]);

/* ---- Console ---------------------------------------------------------------------------------------------------- */

/* Formats into this vCPU's line buffer; each full line is one call. Knows %d %i %u %x %X %p %s %c %% with the flags
 * '-' and '0', width and precision (also '*'), and the sizes h, l, ll, z. */
void uk_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void uk_vprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* Sends an unfinished line. uk_exit, uk_stop and uk_power_off do so themselves; after a CPU exception it is lost. */
void uk_flush(void);

/* [call for each 64 KiB] Writes bytes past the line buffer. They must lie in the image, a stack or the heap: not in the
 * arguments or the environment. Returns 0 or a negated error number. */
int uk_write(const void *bytes, size_t length);

/* [call] Takes what input there is, without waiting. Returns the number of bytes or a negated error number. */
int64_t uk_read(void *bytes, size_t capacity);

/* [call, unless a line has been taken before] Takes the next line of input, without its end of line, if all of it has
 * arrived. What does not fit is dropped; a line of more than 1024 bytes is cut into several. To be used by one vCPU
 * only, and not together with uk_read. */
bool uk_read_line(char *line, size_t capacity);

/* ---- Time and events -------------------------------------------------------------------------------------------- */

#define UK_NEVER UINT64_MAX

struct uk_time {
    uint64_t monotonic_ns; /* from boot; never goes back, not in a clone either */
    uint64_t wall_ns; /* since 1970 */
};

/* [call] */
struct uk_time uk_clock(void);

/* [call] Sleeps until one of the events (enum uk_event) is pending or the monotonic clock reaches the deadline.
 * Returns the pending ones of these events: 0 when the deadline has passed. */
uint32_t uk_wait(uint64_t deadline_ns, uint32_t events);

/* The time stamp counter, read after all earlier loads are done. */
static inline uint64_t uk_rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Frequency of uk_rdtsc in kHz, 1 at least. Where the host does not tell it is measured, which takes 10 ms, once. */
uint64_t uk_tsc_khz(void);

/* ---- Random numbers --------------------------------------------------------------------------------------------- */

/* [call for each 4096 bytes] From the host's cryptographic generator. A generator of the guest's own must be seeded
 * again when generation_id has changed, as the one below does. */
void uk_random(void *bytes, size_t length);

/* [call at first, and when generation_id has changed] From this vCPU's own generator (ChaCha20, earlier numbers cannot be found from its
 * state). It seeds itself from uk_random, and again in every clone before the first number there: no two instances draw the same. */
uint64_t uk_random_u64(void);

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* At least `size` bytes, aligned to 16, contents undefined. Never returns NULL: when the heap is used up the machine stops
 * as out of memory (stop reason PGFAULT, ENOMEM). */
void *uk_alloc(size_t size);

/* Gives memory of uk_alloc back; NULL is fine. */
void uk_free(void *memory);

/* Whole pages, zero-filled and aligned to a page, that are never given back. Out of memory as for uk_alloc. */
void *uk_alloc_pages(size_t count);

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *a, const void *b, size_t length);
void *memchr(const void *bytes, int byte, size_t length);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t length);
char *strchr(const char *text, int byte);

/* Reads a decimal number that is the whole text. False, and *value untouched, when it is none or too large. */
bool uk_parse_u64(const char *text, uint64_t *value);
bool uk_parse_i32(const char *text, int32_t *value);

/* ---- Disks ------------------------------------------------------------------------------------------------------ */

/* A disk is used by one vCPU at a time. Offsets and lengths are in bytes, multiples of 512. Data lies in the image, a stack or the heap.
 * The functions that take a request to its end spin for a moment and then sleep until it is done. */
#define UK_DISK_SLOTS 12u
#define UK_SECTOR_SIZE 512u
#define UK_DISK_MAX_TRANSFER (4u << 20)

struct uk_disk;

enum uk_disk_op {
    UK_DISK_READ = 0,
    UK_DISK_WRITE = 1,
    UK_DISK_FLUSH = 4,
    UK_DISK_DISCARD = 11,
    UK_DISK_WRITE_ZEROES = 13,
};

/* A request that is under way. The caller sets the first four; it lies in the image, a stack or the heap and stays there until it is done. */
struct uk_disk_request {
    enum uk_disk_op op;
    uint64_t offset;
    void *data; /* for reads and writes */
    uint64_t length;
    int status; /* UK_DISK_PENDING, then 0 or a negated error number */
    struct {
        uint32_t type;
        uint32_t reserved;
        uint64_t sector;
    } header; /* for the device, like the rest */
    struct {
        uint64_t sector;
        uint32_t sectors;
        uint32_t flags;
    } range;
    volatile uint8_t result;
};

#define UK_DISK_PENDING 1

/* [several calls, the first time] The disk in a slot, ready to be used: volumes have slots 0 to 3, ROMs 4 to 11. Returns 0, -UK_ENODEV when there is none, or
 * -UK_EPROTO when it cannot be used. */
int uk_disk_open(uint32_t slot, struct uk_disk **disk);

/* Where the disk in a slot is to be mounted, NULL when there is none. */
const char *uk_disk_at(uint32_t slot);

uint64_t uk_disk_size(const struct uk_disk *disk);
bool uk_disk_read_only(const struct uk_disk *disk);

/* [call] Each returns 0, -UK_EIO, -UK_EINVAL for a range that cannot be, or -UK_EROFS. What was written is durable after the next flush. */
int uk_disk_read(struct uk_disk *disk, uint64_t offset, void *data, uint64_t length);
int uk_disk_write(struct uk_disk *disk, uint64_t offset, const void *data, uint64_t length);
int uk_disk_flush(struct uk_disk *disk);
int uk_disk_discard(struct uk_disk *disk, uint64_t offset, uint64_t length);
int uk_disk_write_zeroes(struct uk_disk *disk, uint64_t offset, uint64_t length);

/* Puts a request into the queue without telling the disk, which uk_disk_kick does for all since the last time. Returns 0, -UK_EAGAIN when the queue
 * is full, or as above. */
int uk_disk_submit(struct uk_disk *disk, struct uk_disk_request *request);

/* [call, unless the disk is looking for requests anyway] */
void uk_disk_kick(struct uk_disk *disk);

/* Notes which requests are done, without waiting. Returns how many were. */
uint32_t uk_disk_poll(struct uk_disk *disk);

/* Waits for a request that was submitted and kicked. Returns its status. */
int uk_disk_await(struct uk_disk *disk, struct uk_disk_request *request);

/* ---- Several vCPUs ---------------------------------------------------------------------------------------------- */

/* Index of the vCPU that asks, from 0. */
static inline uint32_t uk_cpu_index(void)
{
    uint32_t index;
    __asm__("movl %%gs:0, %0" : "=r"(index));
    return index;
}

/* [call] Runs function(arg) on an idle vCPU. Returns 0, -UK_EINVAL when there is no such secondary vCPU or -UK_EBUSY when it
 * still runs something. A wake sent before the function has begun may be one with that of the start. To be used by one
 * vCPU at a time for the same index. */
int uk_cpu_start(uint32_t index, void (*function)(void *arg), void *arg);

/* Whether what uk_cpu_start began on this vCPU has returned; its writes to memory are then visible. */
bool uk_cpu_idle(uint32_t index);

/* [call] Makes UK_EVENT_WAKE pending at a vCPU. Returns 0 or -UK_EINVAL. */
int uk_wake(uint32_t index);

#endif
