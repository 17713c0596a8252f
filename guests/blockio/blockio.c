/* blockio: reads and writes a disk in a pattern, and tells how long it took. */
#include "unikraft.h"

#define LINE_SIZE 256
#define MAX_DEPTH 64u
#define MAX_BYTES (1u << 20)

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
            run(strcmp(words[0], "write") == 0 ? UK_DISK_WRITE : UK_DISK_READ, strcmp(words[1], "random") == 0, bytes, depth, count);
        } else {
            uk_printf("usage: read|write random|seq BYTES DEPTH COUNT\n");
        }
    }
    return 0;
}
