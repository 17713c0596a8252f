/* blockio: reads and writes a disk in a pattern, and tells how long it took; or does everything that a disk can, and looks whether it was done. */
#include "unikraft.h"

#define LINE_SIZE 256
#define MAX_DEPTH 64u
#define MAX_BYTES (1u << 20)
#define MAX_BLOCKS 4096u
#define REPORT 256u

static struct uk_disk *disk;
static struct uk_disk_request requests[MAX_DEPTH];
static char *buffers[MAX_DEPTH];

static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252ul;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Keeps `depth` requests outstanding until `count` are done. */
static void run(enum uk_disk_op op, bool random, uint64_t bytes, uint64_t depth, uint64_t count)
{
    uint64_t blocks = uk_disk_size(disk) / bytes;
    uint64_t begun = 0, ended = 0;
    int error = 0;
    uint64_t start = uk_rdtsc();
    while (ended < count && error == 0) {
        for (uint64_t i = 0; i < depth && begun < count; i++) {
            if (requests[i].status == UK_DISK_PENDING)
                continue;
            requests[i].op = op;
            requests[i].offset = (random ? next_random() % blocks : begun % blocks) * bytes;
            requests[i].data = buffers[i];
            requests[i].length = bytes;
            error = uk_disk_submit(disk, &requests[i]);
            if (error != 0)
                break;
            begun++;
        }
        uk_disk_kick(disk);
        if (error == -UK_EAGAIN)
            error = 0;
        uint64_t done = uk_disk_poll(disk);
        if (done == 0) {
            for (uint64_t i = 0; i < depth; i++) {
                if (requests[i].status == UK_DISK_PENDING) {
                    uk_disk_await(disk, &requests[i]);
                    break;
                }
            }
        }
        ended = begun;
        for (uint64_t i = 0; i < depth; i++) {
            ended -= requests[i].status == UK_DISK_PENDING;
            error = requests[i].status < 0 ? requests[i].status : error;
        }
    }
    uint64_t cycles = uk_rdtsc() - start;
    uint64_t khz = uk_tsc_khz();
    if (error != 0)
        uk_printf("io error=%d\n", -error);
    else
        uk_printf("io bytes=%lu ns=%lu\n", count * bytes, cycles / khz * 1000000 + cycles % khz * 1000000 / khz);
}

/* What is in a block: the number of what was last written to it in every word, 0 for nothing. */
static struct {
    uint64_t number;
    bool discarded; /* or zeroes, until it was read */
    bool busy;
} blocks[MAX_BLOCKS];

static bool holds(const uint64_t *words, uint64_t bytes, uint64_t number)
{
    for (uint64_t i = 0; i < bytes / sizeof *words; i++)
        if (words[i] != number)
            return false;
    return true;
}

/* Notes what a request has done. Returns whether that is what it was to do. */
static bool note(const struct uk_disk_request *request, uint64_t bytes)
{
    uint64_t block = request->offset / bytes;
    const uint64_t *words = request->data;
    if (request->op == UK_DISK_FLUSH)
        return true;
    blocks[block].busy = false;
    if (request->op == UK_DISK_WRITE)
        blocks[block].number = words[0];
    if (request->op == UK_DISK_WRITE_ZEROES)
        blocks[block].number = 0;
    if (request->op != UK_DISK_READ) {
        blocks[block].discarded = request->op == UK_DISK_DISCARD;
        return true;
    }
    if (blocks[block].discarded && holds(words, bytes, 0))
        blocks[block].number = 0;
    blocks[block].discarded = false;
    if (holds(words, bytes, blocks[block].number))
        return true;
    uk_printf("verify failed block=%lu found=%lu expected=%lu\n", block, words[0], blocks[block].number);
    return false;
}

/* Keeps `depth` requests of all kinds outstanding, one for a block at a time, until `count` are done; without end when that is 0. Input ends it. */
static void verify(uint64_t bytes, uint64_t depth, uint64_t count)
{
    static bool pending[MAX_DEPTH];
    static uint64_t last;
    const uint32_t attention = UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT;
    uint64_t used = uk_disk_size(disk) / bytes;
    used = used < MAX_BLOCKS ? used : MAX_BLOCKS;
    uint64_t ended = 0, outstanding = 0;
    bool right = true, ending = false;
    while (!ending || outstanding != 0) {
        ending = ending || !right || (count != 0 && ended + outstanding >= count) || (uk_info()->events & attention) != 0;
        for (uint64_t i = 0; i < depth && !ending; i++) {
            struct uk_disk_request *request = &requests[i];
            uint64_t block = next_random() % used;
            uint64_t kind = next_random() % 16;
            if (pending[i] || blocks[block].busy)
                continue;
            request->op = kind < 6 ? UK_DISK_READ : kind < 12 ? UK_DISK_WRITE : kind < 13 ? UK_DISK_DISCARD : kind < 15 ? UK_DISK_WRITE_ZEROES : UK_DISK_FLUSH;
            request->offset = request->op == UK_DISK_FLUSH ? 0 : block * bytes;
            request->data = buffers[i];
            request->length = request->op == UK_DISK_FLUSH ? 0 : bytes;
            if (request->op == UK_DISK_WRITE) {
                last++;
                for (uint64_t word = 0; word < bytes / sizeof last; word++)
                    ((uint64_t *)request->data)[word] = last;
            }
            int error = uk_disk_submit(disk, request);
            if (error == -UK_EAGAIN)
                break;
            if (error != 0) {
                uk_printf("verify error=%d\n", -error);
                right = false;
                break;
            }
            blocks[block].busy = blocks[block].busy || request->op != UK_DISK_FLUSH;
            pending[i] = true;
            outstanding++;
        }
        uk_disk_kick(disk);
        if (uk_disk_poll(disk) == 0) {
            for (uint64_t i = 0; i < depth; i++) {
                if (pending[i]) {
                    uk_disk_await(disk, &requests[i]);
                    break;
                }
            }
        }
        for (uint64_t i = 0; i < depth; i++) {
            if (!pending[i] || requests[i].status == UK_DISK_PENDING)
                continue;
            pending[i] = false;
            outstanding--;
            ended++;
            if (requests[i].status < 0) {
                uk_printf("verify error=%d\n", -requests[i].status);
                right = false;
            } else {
                right = note(&requests[i], bytes) && right;
            }
            if (ended % REPORT == 0)
                uk_printf("verified %lu\n", ended);
        }
    }
    if (right)
        uk_printf("verify done %lu\n", ended);
}

/* Several disks in step: each lane writes a number to its block of one disk after the other, to each when the one before has acknowledged it, and then the next
 * number. Every other lane also has each disk flush it first. So no disk may ever be ahead of the one before it, nor the first one ahead of the last by more
 * than one. */
#define MAX_DISKS 4u

static struct uk_disk *disks[MAX_DISKS];
static uint64_t disk_count;
static struct lane {
    struct uk_disk_request request;
    uint64_t number;
    uint64_t disk; /* the last one that has it, or is being given it */
    bool ready; /* to be submitted */
    bool pending;
} lanes[MAX_DEPTH];

static void advance(uint64_t index, uint64_t bytes)
{
    struct lane *lane = &lanes[index];
    struct uk_disk_request *request = &lane->request;
    bool flushes = index % 2 != 0 && lane->number != 0 && request->op == UK_DISK_WRITE;
    if (!flushes) {
        bool all = lane->number == 0 || lane->disk == disk_count - 1;
        lane->disk = all ? 0 : lane->disk + 1;
        lane->number += all;
        for (uint64_t word = 0; word < bytes / sizeof lane->number; word++)
            ((uint64_t *)buffers[index])[word] = lane->number;
    }
    request->op = flushes ? UK_DISK_FLUSH : UK_DISK_WRITE;
    request->offset = flushes ? 0 : index * bytes;
    request->data = buffers[index];
    request->length = flushes ? 0 : bytes;
    lane->ready = true;
}

/* What all lanes have on a disk, or on all, by what was acknowledged. */
static uint64_t acknowledged(uint64_t depth)
{
    uint64_t least = ~0ul;
    for (uint64_t i = 0; i < depth; i++) {
        bool all = lanes[i].disk == disk_count - 1 && !lanes[i].ready && !lanes[i].pending;
        uint64_t number = lanes[i].number - (lanes[i].number != 0 && !all);
        least = number < least ? number : least;
    }
    return least;
}

/* Reads the block of a lane from a disk. Returns the number in it, or tells what is wrong and returns false. */
static bool read_lane(uint64_t disk_index, uint64_t lane, uint64_t bytes, uint64_t *number)
{
    static uint64_t words[UK_PAGE_SIZE / sizeof(uint64_t)];
    int error = uk_disk_read(disks[disk_index], lane * bytes, words, bytes);
    if (error == 0 && holds(words, bytes, words[0])) {
        *number = words[0];
        return true;
    }
    uk_printf("lockstep failed disk=%lu lane=%lu error=%d\n", disk_index, lane, -error);
    return false;
}

/* Writes in step until there is input, lets what is outstanding end, and compares the disks with what it knows. */
static void run_in_step(uint64_t bytes, uint64_t depth)
{
    const uint32_t attention = UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT;
    uint64_t ended = 0, outstanding = 0, number;
    bool ending = false;
    while (!ending || outstanding != 0) {
        ending = ending || (uk_info()->events & attention) != 0;
        for (uint64_t i = 0; i < depth && !ending; i++) {
            struct lane *lane = &lanes[i];
            if (lane->pending)
                continue;
            if (!lane->ready)
                advance(i, bytes);
            int error = uk_disk_submit(disks[lane->disk], &lane->request);
            if (error == -UK_EAGAIN)
                continue;
            if (error != 0) {
                uk_printf("lockstep error=%d\n", -error);
                return;
            }
            lane->ready = false;
            lane->pending = true;
            outstanding++;
        }
        uint64_t done = 0;
        for (uint64_t i = 0; i < disk_count; i++) {
            uk_disk_kick(disks[i]);
            done += uk_disk_poll(disks[i]);
        }
        for (uint64_t i = 0; i < depth && done == 0; i++) {
            if (lanes[i].pending) {
                uk_disk_await(disks[lanes[i].disk], &lanes[i].request);
                break;
            }
        }
        for (uint64_t i = 0; i < depth; i++) {
            struct lane *lane = &lanes[i];
            if (!lane->pending || lane->request.status == UK_DISK_PENDING)
                continue;
            lane->pending = false;
            outstanding--;
            if (lane->request.status < 0) {
                uk_printf("lockstep error=%d\n", -lane->request.status);
                return;
            }
            if (++ended % REPORT == 0)
                uk_printf("step %lu\n", acknowledged(depth));
        }
    }
    for (uint64_t i = 0; i < depth; i++) {
        for (uint64_t on = 0; on < disk_count; on++) {
            uint64_t expected = lanes[i].number;
            if (expected != 0 && (on > lanes[i].disk || (on == lanes[i].disk && lanes[i].ready && lanes[i].request.op == UK_DISK_WRITE)))
                expected--;
            if (!read_lane(on, i, bytes, &number))
                return;
            if (number != expected) {
                uk_printf("lockstep failed disk=%lu lane=%lu found=%lu expected=%lu\n", on, i, number, expected);
                return;
            }
        }
    }
    uk_printf("lockstep done %lu\n", acknowledged(depth));
}

/* Looks whether the disks are in step, as somebody does who knows nothing of what was written. */
static void check_steps(uint64_t bytes, uint64_t depth)
{
    uint64_t least = ~0ul;
    for (uint64_t i = 0; i < depth; i++) {
        uint64_t first = 0, before = 0, number;
        for (uint64_t on = 0; on < disk_count; on++) {
            if (!read_lane(on, i, bytes, &number))
                return;
            first = on == 0 ? number : first;
            if ((on != 0 && number > before) || number + 1 < first) {
                uk_printf("lockstep failed disk=%lu lane=%lu found=%lu before=%lu first=%lu\n", on, i, number, before, first);
                return;
            }
            before = number;
        }
        least = before < least ? before : least;
    }
    uk_printf("lockstep holds disks=%lu least=%lu\n", disk_count, least);
}

/* Splits a line into words. */
static int split(char *line, char **words, int capacity)
{
    int count = 0;
    while (line != NULL && count < capacity) {
        words[count++] = line;
        line = strchr(line, ' ');
        if (line != NULL)
            *line++ = '\0';
    }
    return count;
}

int main(void)
{
    int error = uk_disk_open(0, &disk);
    if (error != 0) {
        uk_printf("blockio: no disk: error %d\n", -error);
        return 1;
    }
    while (disk_count < MAX_DISKS && uk_disk_open((uint32_t)disk_count, &disks[disk_count]) == 0)
        disk_count++;
    for (uint32_t i = 0; i < MAX_DEPTH; i++)
        buffers[i] = uk_alloc_pages(MAX_BYTES / UK_PAGE_SIZE / 4);
    uk_printf("blockio ready\n");
    while (!uk_stop_requested()) {
        static char line[LINE_SIZE];
        char *words[5];
        uint64_t bytes, depth, count;
        if (!uk_read_line(line, sizeof line)) {
            uk_wait(UK_NEVER, UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT);
        } else if (split(line, words, 5) == 5 && uk_parse_u64(words[2], &bytes) && uk_parse_u64(words[3], &depth) && uk_parse_u64(words[4], &count)
            && bytes != 0 && bytes % UK_SECTOR_SIZE == 0 && bytes <= MAX_BYTES / 4 && depth != 0 && depth <= MAX_DEPTH) {
            for (uint32_t i = 0; i < MAX_DEPTH; i++)
                requests[i].status = 0;
            if (strcmp(words[0], "verify") == 0)
                verify(bytes, depth, count);
            else if (strcmp(words[0], "lockstep") == 0 && bytes <= UK_PAGE_SIZE)
                count == 0 ? run_in_step(bytes, depth) : check_steps(bytes, depth);
            else
                run(strcmp(words[0], "write") == 0 ? UK_DISK_WRITE : UK_DISK_READ, strcmp(words[1], "random") == 0, bytes, depth, count);
        } else {
            uk_printf("usage: read|write|verify|lockstep random|seq BYTES DEPTH COUNT\n");
        }
    }
    return 0;
}
