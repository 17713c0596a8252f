/*
 * kv: a small key-value store on a volume that survives a crash at any moment, and says so: its journal checks itself at start.
 *
 * The volume has a superblock and two halves, of which one holds the journal. Each record is one sector, which no disk writes by halves. It has a
 * checksum, a number, and the checksum of the record before: the journal ends where that chain does. A change is acknowledged after a flush. When a half
 * is full, what still counts is written to the other one, and then the superblock names that.
 */
#include "unikraft.h"

#define LINE_SIZE 1024
#define KEY_SIZE 64u
#define VALUE_SIZE 400u
#define MAX_KEYS 2048u
#define TABLE_SIZE 4096u
#define MAX_BATCH 64u
#define HALF_MAX_RECORDS 8192u
#define CHUNK_RECORDS 128u
#define HALVES_OFFSET 4096u

#define SUPERBLOCK_MAGIC 0x564B4B55u /* "UKKV" */
#define RECORD_MAGIC 0x524B4B55u /* "UKKR" */
#define FORMAT_VERSION 1u
#define DELETION 1u

enum exit_code {
    EXIT_USAGE = 64,
    EXIT_NO_DISK = 65,
    EXIT_FOREIGN = 66,
    EXIT_DAMAGED = 67,
    EXIT_IO = 74,
};

struct superblock {
    uint32_t magic;
    uint32_t checksum; /* of all that follows */
    uint32_t version;
    uint32_t half;
    uint64_t epoch; /* counts the changes of halves */
    uint64_t half_records;
    uint64_t first; /* number of the first record of the half */
    char zero[512 - 40];
};

struct record {
    uint32_t magic;
    uint32_t checksum; /* of all that follows */
    uint32_t previous; /* checksum of the record before, of the superblock for the first */
    uint32_t flags;
    uint64_t epoch;
    uint64_t number;
    char key[KEY_SIZE];
    char value[VALUE_SIZE];
    char zero[16];
};

_Static_assert(sizeof(struct superblock) == UK_SECTOR_SIZE, "one sector");
_Static_assert(sizeof(struct record) == UK_SECTOR_SIZE, "one sector");

struct entry {
    char key[KEY_SIZE];
    char value[VALUE_SIZE];
    bool used; /* also of a deleted key, so that others behind it are found */
    bool live;
};

static struct {
    struct uk_disk *disk;
    struct superblock super;
    uint64_t records; /* in the half */
    uint64_t last; /* number of the last one */
    uint32_t chain;
    uint32_t keys;
    uint64_t load_round;
    struct entry *table;
    struct record *batch;
    struct record *chunk;
} kv;

static uint32_t crc_table[256];

static void crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82F63B78u : 0);
        crc_table[i] = crc;
    }
}

static uint32_t crc32c(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    uint32_t crc = ~0u;
    while (length-- != 0)
        crc = crc >> 8 ^ crc_table[(crc ^ *at++) & 0xFF];
    return ~crc;
}

static uint32_t checksum_of(const void *sector)
{
    return crc32c((const char *)sector + 8, UK_SECTOR_SIZE - 8);
}

static uint64_t position(uint32_t half, uint64_t record)
{
    return HALVES_OFFSET + (half * kv.super.half_records + record) * UK_SECTOR_SIZE;
}

/* ---- What is in memory ------------------------------------------------------------------------------------------- */

static struct entry *slot_of(const char *key)
{
    uint32_t index = crc32c(key, strlen(key)) % TABLE_SIZE;
    while (kv.table[index].used && strcmp(kv.table[index].key, key) != 0)
        index = (index + 1) % TABLE_SIZE;
    return &kv.table[index];
}

static void apply(const struct record *record)
{
    struct entry *entry = slot_of(record->key);
    if (!entry->used && (record->flags & DELETION) == 0) {
        memcpy(entry->key, record->key, KEY_SIZE);
        entry->used = true;
    }
    bool live = (record->flags & DELETION) == 0;
    if (entry->used) {
        kv.keys += live && !entry->live ? 1u : 0u;
        kv.keys -= !live && entry->live ? 1u : 0u;
        entry->live = live;
        memcpy(entry->value, record->value, VALUE_SIZE);
    }
}

static void fill(struct record *record, const char *key, const char *value, uint32_t index, uint32_t previous, uint64_t epoch)
{
    memset(record, 0, sizeof *record);
    record->magic = RECORD_MAGIC;
    record->previous = previous;
    record->flags = value == NULL ? DELETION : 0;
    record->epoch = epoch;
    record->number = kv.last + 1 + index;
    memcpy(record->key, key, strlen(key));
    if (value != NULL)
        memcpy(record->value, value, strlen(value));
    record->checksum = checksum_of(record);
}

/* ---- What is on the volume --------------------------------------------------------------------------------------- */

static int write_superblock(void)
{
    kv.super.magic = SUPERBLOCK_MAGIC;
    kv.super.version = FORMAT_VERSION;
    kv.super.checksum = checksum_of(&kv.super);
    int error = uk_disk_write(kv.disk, 0, &kv.super, sizeof kv.super);
    return error != 0 ? error : uk_disk_flush(kv.disk);
}

/* Writes records side by side, as many requests as there are records, and flushes. */
static int write_batch(uint32_t half, uint64_t first, uint32_t count)
{
    static struct uk_disk_request requests[MAX_BATCH];
    int error = 0;
    uint32_t submitted = 0;
    for (; submitted < count && error == 0; submitted++) {
        requests[submitted] = (struct uk_disk_request){
            .op = UK_DISK_WRITE,
            .offset = position(half, first + submitted),
            .data = &kv.batch[submitted],
            .length = UK_SECTOR_SIZE,
        };
        error = uk_disk_submit(kv.disk, &requests[submitted]);
        if (error != 0)
            break;
    }
    uk_disk_kick(kv.disk);
    for (uint32_t i = 0; i < submitted; i++) {
        int status = uk_disk_await(kv.disk, &requests[i]);
        error = error != 0 ? error : status;
    }
    return error != 0 ? error : uk_disk_flush(kv.disk);
}

/* Moves what counts to the other half. The old one counts until the superblock is durable. */
static int compact(void)
{
    struct superblock before = kv.super;
    kv.super.half ^= 1;
    kv.super.epoch++;
    kv.super.first = kv.last + 1;
    kv.super.magic = SUPERBLOCK_MAGIC;
    kv.super.version = FORMAT_VERSION;
    kv.super.checksum = checksum_of(&kv.super);
    uint32_t chain = kv.super.checksum;
    uint64_t records = 0;
    uint32_t pending = 0;
    int error = 0;
    uint64_t last = kv.last;
    for (uint32_t i = 0; i <= TABLE_SIZE && error == 0; i++) {
        if (i < TABLE_SIZE && kv.table[i].live) {
            fill(&kv.batch[pending], kv.table[i].key, kv.table[i].value, pending, chain, kv.super.epoch);
            chain = kv.batch[pending++].checksum;
        }
        if (pending == MAX_BATCH || (i == TABLE_SIZE && pending != 0)) {
            error = write_batch(kv.super.half, records, pending);
            records += pending;
            kv.last += pending;
            pending = 0;
        }
    }
    error = error != 0 ? error : write_superblock();
    if (error != 0) {
        /* The superblock may be the new one by now, and what it names is complete: whichever is found later is right, unless we write on. */
        kv.super = before;
        kv.last = last;
        return error;
    }
    kv.records = records;
    kv.chain = chain;
    return 0;
}

/* Makes room for a batch, and takes it back when a compaction has failed in the middle. */
static int make_room(uint32_t count)
{
    static bool unsure;
    if (unsure) {
        /* Which superblock is durable is not known: the one in memory is made so. */
        int error = write_superblock();
        if (error != 0)
            return error;
        unsure = false;
    }
    if (kv.records + count <= kv.super.half_records)
        return 0;
    int error = compact();
    unsure = error != 0;
    if (error == 0 && kv.records + count > kv.super.half_records)
        return -UK_ENOSPC;
    return error;
}

/* Writes the first `count` records of the batch behind the journal. */
static int commit(uint32_t count)
{
    int error = write_batch(kv.super.half, kv.records, count);
    if (error != 0)
        return error;
    for (uint32_t i = 0; i < count; i++)
        apply(&kv.batch[i]);
    kv.records += count;
    kv.last += count;
    kv.chain = kv.batch[count - 1].checksum;
    return 0;
}

static int put(const char *key, const char *value)
{
    if (value != NULL && !slot_of(key)->used && kv.keys >= MAX_KEYS)
        return -UK_ENOSPC;
    int error = make_room(1);
    if (error != 0)
        return error;
    fill(&kv.batch[0], key, value, 0, kv.chain, kv.super.epoch);
    return commit(1);
}

static bool is_record(const struct record *record)
{
    return record->magic == RECORD_MAGIC && record->checksum == checksum_of(record) && record->epoch == kv.super.epoch
        && record->key[KEY_SIZE - 1] == '\0' && record->value[VALUE_SIZE - 1] == '\0';
}

/*
 * Reads the journal from its beginning. Behind its end there may be records of the batch that was being written, and nothing later: those would mean that
 * something was lost which had been flushed.
 */
static int replay(void (*use)(const struct record *record), uint64_t *records, uint64_t *last, uint32_t *chain, const char **damage)
{
    bool ended = false;
    *records = 0;
    *last = kv.super.first - 1;
    *chain = kv.super.checksum;
    *damage = NULL;
    for (uint64_t at = 0; at < kv.super.half_records && at <= *records + 2 * CHUNK_RECORDS; at += CHUNK_RECORDS) {
        uint64_t left = kv.super.half_records - at;
        uint64_t count = left < CHUNK_RECORDS ? left : CHUNK_RECORDS;
        int error = uk_disk_read(kv.disk, position(kv.super.half, at), kv.chunk, count * UK_SECTOR_SIZE);
        if (error != 0)
            return error;
        for (uint64_t i = 0; i < count; i++) {
            const struct record *record = &kv.chunk[i];
            bool valid = is_record(record);
            if (!ended && valid && record->number == *last + 1 && record->previous == *chain) {
                if (use != NULL)
                    use(record);
                ++*records;
                ++*last;
                *chain = record->checksum;
            } else {
                ended = true;
                if (valid && record->number > *last + MAX_BATCH)
                    *damage = "records behind a gap";
            }
        }
    }
    return 0;
}

static bool is_zero(const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length-- != 0)
        if (*at++ != 0)
            return false;
    return true;
}

static void open_store(uint32_t slot)
{
    int error = uk_disk_open(slot, &kv.disk);
    if (error != 0) {
        uk_printf("kv: no disk in slot %u: error %d\n", slot, -error);
        uk_exit(EXIT_NO_DISK);
    }
    uint64_t size = uk_disk_size(kv.disk);
    uint64_t half_records = size < 64 << 10 ? 0 : (size - HALVES_OFFSET) / 2 / UK_SECTOR_SIZE;
    half_records = half_records < HALF_MAX_RECORDS ? half_records : HALF_MAX_RECORDS;
    kv.table = uk_alloc_pages((TABLE_SIZE * sizeof(struct entry) + UK_PAGE_SIZE - 1) / UK_PAGE_SIZE);
    kv.batch = uk_alloc_pages(MAX_BATCH * UK_SECTOR_SIZE / UK_PAGE_SIZE);
    kv.chunk = uk_alloc_pages(CHUNK_RECORDS * UK_SECTOR_SIZE / UK_PAGE_SIZE);
    error = uk_disk_read(kv.disk, 0, &kv.super, sizeof kv.super);
    if (error == 0 && half_records != 0 && is_zero(&kv.super, sizeof kv.super)) {
        kv.super = (struct superblock){ .epoch = 1, .half_records = half_records, .first = 1 };
        error = write_superblock();
    }
    if (error != 0) {
        uk_printf("kv: the volume cannot be used: error %d\n", -error);
        uk_exit(EXIT_IO);
    }
    if (kv.super.magic != SUPERBLOCK_MAGIC || kv.super.version != FORMAT_VERSION || half_records == 0) {
        uk_printf("kv: the volume holds something else\n");
        uk_exit(EXIT_FOREIGN);
    }
    const char *damage = "a superblock with a wrong checksum";
    if (kv.super.checksum == checksum_of(&kv.super) && kv.super.half < 2 && kv.super.half_records <= half_records) {
        error = replay(apply, &kv.records, &kv.last, &kv.chain, &damage);
        if (error != 0) {
            uk_printf("kv: the volume cannot be read: error %d\n", -error);
            uk_exit(EXIT_IO);
        }
    }
    if (damage != NULL) {
        uk_printf("kv: damaged: %s\n", damage);
        uk_exit(EXIT_DAMAGED);
    }
    uk_printf("kv ready keys=%u last=%lu epoch=%lu at=%s\n", kv.keys, kv.last, kv.super.epoch, uk_disk_at(slot));
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

static void check(void)
{
    uint64_t records, last;
    uint32_t chain;
    const char *damage;
    int error = replay(NULL, &records, &last, &chain, &damage);
    if (error != 0)
        uk_printf("check error=%d\n", -error);
    else if (damage != NULL)
        uk_printf("check failed: %s\n", damage);
    else if (last < kv.last)
        uk_printf("check failed: last is %lu, was %lu\n", last, kv.last);
    else
        uk_printf("check ok records=%lu keys=%u last=%lu\n", records, kv.keys, last);
}

/* Writes batches of `depth` records at once, without end when `batches` is 0, and prints what is acknowledged. Key n of 997 gets the number of its record. */
static void load(uint64_t batches, uint32_t depth)
{
    const uint32_t attention = UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT;
    for (uint64_t i = 0; (batches == 0 || i < batches) && (uk_info()->events & attention) == 0; i++) {
        int error = make_room(depth);
        uint32_t chain = kv.chain;
        for (uint32_t n = 0; n < depth; n++) {
            char digits[24], key[KEY_SIZE] = "load-";
            uint64_t number = kv.last + 1 + n;
            uint32_t length = 0;
            for (uint64_t left = number; left != 0 || length == 0; left /= 10)
                digits[length++] = (char)('0' + left % 10);
            char value[24] = "";
            for (uint32_t d = 0; d < length; d++)
                value[d] = digits[length - 1 - d];
            uint64_t which = number % 997;
            key[5] = (char)('0' + which / 100);
            key[6] = (char)('0' + which / 10 % 10);
            key[7] = (char)('0' + which % 10);
            fill(&kv.batch[n], key, value, n, chain, kv.super.epoch);
            chain = kv.batch[n].checksum;
        }
        error = error != 0 ? error : commit(depth);
        if (error != 0) {
            uk_printf("load error=%d\n", -error);
            return;
        }
        uk_printf("ack %lu\n", kv.last);
    }
    uk_printf("load done last=%lu\n", kv.last);
}

static void obey(char *line)
{
    char *key = strchr(line, ' ');
    char *value = NULL;
    if (key != NULL) {
        *key++ = '\0';
        value = strchr(key, ' ');
        if (value != NULL)
            *value++ = '\0';
    }
    bool has_key = key != NULL && *key != '\0' && strlen(key) < KEY_SIZE;
    uint64_t count, depth = 1;
    if (strcmp(line, "put") == 0 && has_key && value != NULL && strlen(value) < VALUE_SIZE) {
        int error = put(key, value);
        if (error != 0)
            uk_printf("put error=%d\n", -error);
        else
            uk_printf("ok %lu\n", kv.last);
    } else if (strcmp(line, "del") == 0 && has_key) {
        int error = put(key, NULL);
        if (error != 0)
            uk_printf("del error=%d\n", -error);
        else
            uk_printf("ok %lu\n", kv.last);
    } else if (strcmp(line, "get") == 0 && has_key) {
        struct entry *entry = slot_of(key);
        if (entry->live)
            uk_printf("value=%s\n", entry->value);
        else
            uk_printf("none\n");
    } else if (strcmp(line, "load") == 0 && key != NULL && uk_parse_u64(key, &count)
        && (value == NULL || (uk_parse_u64(value, &depth) && depth >= 1 && depth <= MAX_BATCH))) {
        load(count, (uint32_t)depth);
    } else if (strcmp(line, "check") == 0) {
        check();
    } else if (strcmp(line, "count") == 0) {
        uk_printf("keys=%u last=%lu\n", kv.keys, kv.last);
    } else {
        uk_printf("what?\n");
    }
}

int main(int argc, char **argv)
{
    uint64_t slot = 0, load_depth = 0;
    for (int i = 1; i < argc; i += 2) {
        bool has_value = i + 1 < argc;
        bool known = (strcmp(argv[i], "--disk") == 0 && has_value && uk_parse_u64(argv[i + 1], &slot) && slot < UK_DISK_SLOTS)
            || (strcmp(argv[i], "--load") == 0 && has_value && uk_parse_u64(argv[i + 1], &load_depth) && load_depth <= MAX_BATCH);
        if (!known) {
            uk_printf("kv: bad argument '%s'\nusage: kv [--disk SLOT] [--load DEPTH]\n", argv[i]);
            return EXIT_USAGE;
        }
    }
    crc_init();
    open_store((uint32_t)slot);
    while (!uk_stop_requested()) {
        static char line[LINE_SIZE];
        if (load_depth != 0)
            load(0, (uint32_t)load_depth);
        load_depth = 0;
        if (uk_read_line(line, sizeof line))
            obey(line);
        else
            uk_wait(UK_NEVER, UK_EVENT_STOP_REQUESTED | UK_EVENT_CONSOLE_INPUT);
    }
    uk_printf("stopping\n");
    return 0;
}
