/* The driver for disks: virtio-blk over virtio-mmio, version 2, a split queue. */
#include "sdk.h"

#define DISK_REGISTERS 0xEE000u
#define WINDOW 0x200u
#define ABI_WITH_DISKS 0x00010002u

#define MAGIC 0x74726976u
#define BLOCK_DEVICE 2u

enum reg {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CONFIG = 0x100,
};

enum status {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
};

#define FEATURE_READ_ONLY (1u << 5)
#define FEATURE_FLUSH (1u << 9)
#define FEATURE_DISCARD (1u << 13)
#define FEATURE_WRITE_ZEROES (1u << 14)
#define FEATURE_VERSION_1 1u /* in the high half */

#define QUEUE_SIZE 256u
#define SEGMENT_SIZE (64u << 10)
#define MAX_RANGE_SECTORS ((1u << 30) / UK_SECTOR_SIZE)

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u

/* Longer than most requests take, shorter than it takes to sleep and wake up. */
#define SPIN_US 30u

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct available {
    volatile uint16_t flags;
    volatile uint16_t index;
    volatile uint16_t ring[QUEUE_SIZE];
};

struct used {
    volatile uint16_t flags;
    volatile uint16_t index;
    struct {
        volatile uint32_t id;
        volatile uint32_t length;
    } ring[QUEUE_SIZE];
};

struct disk_entry {
    uint32_t flags;
    uint32_t reserved;
    char at[248];
};

#define ENTRY_PRESENT 1u

struct uk_disk {
    uint32_t slot;
    uint32_t features;
    uint64_t size;
    uint64_t spin_cycles;
    uint16_t available; /* what was submitted */
    uint16_t kicked;
    uint16_t used; /* what was noted */
    uint16_t free; /* first free descriptor, linked by next */
    uint16_t free_count;
    struct descriptor *descriptors;
    struct available *available_ring;
    struct used *used_ring;
    struct uk_disk_request *owners[QUEUE_SIZE];
};

static struct uk_disk *disks[UK_DISK_SLOTS];

/* The hypervisor decodes these instructions, so they are plain loads and stores. */
static uint32_t load(uint32_t slot, enum reg offset)
{
    volatile uint32_t *at = (volatile uint32_t *)(uintptr_t)(DISK_REGISTERS + slot * WINDOW + offset);
    uint32_t value;
    __asm__ volatile("movl %1, %0" : "=r"(value) : "m"(*at) : "memory");
    return value;
}

static void store(uint32_t slot, enum reg offset, uint32_t value)
{
    volatile uint32_t *at = (volatile uint32_t *)(uintptr_t)(DISK_REGISTERS + slot * WINDOW + offset);
    __asm__ volatile("movl %1, %0" : "=m"(*at) : "r"(value) : "memory");
}

static void store_address(uint32_t slot, enum reg offset, const volatile void *address)
{
    store(slot, offset, (uint32_t)(uintptr_t)address);
    store(slot, offset + 4, (uint32_t)((uintptr_t)address >> 32));
}

static const volatile struct disk_entry *entry_of(uint32_t slot)
{
    const volatile struct uk_info *info = uk_info();
    if (info->version < ABI_WITH_DISKS || slot >= info->disk_count || slot >= UK_DISK_SLOTS)
        return NULL;
    const volatile struct disk_entry *entry = (const volatile struct disk_entry *)info->disks + slot;
    return (entry->flags & ENTRY_PRESENT) != 0 ? entry : NULL;
}

const char *uk_disk_at(uint32_t slot)
{
    const volatile struct disk_entry *entry = entry_of(slot);
    return entry != NULL ? (const char *)entry->at : NULL;
}

static int start(struct uk_disk *disk)
{
    uint32_t slot = disk->slot;
    if (load(slot, REG_MAGIC) != MAGIC || load(slot, REG_VERSION) != 2 || load(slot, REG_DEVICE_ID) != BLOCK_DEVICE)
        return -UK_EPROTO;
    store(slot, REG_STATUS, 0);
    while (load(slot, REG_STATUS) != 0)
        __builtin_ia32_pause();
    store(slot, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);

    store(slot, REG_DEVICE_FEATURES_SEL, 1);
    uint32_t high = load(slot, REG_DEVICE_FEATURES);
    store(slot, REG_DEVICE_FEATURES_SEL, 0);
    disk->features = load(slot, REG_DEVICE_FEATURES)
        & (FEATURE_READ_ONLY | FEATURE_FLUSH | FEATURE_DISCARD | FEATURE_WRITE_ZEROES);
    if ((high & FEATURE_VERSION_1) == 0)
        return -UK_EPROTO;
    store(slot, REG_DRIVER_FEATURES_SEL, 1);
    store(slot, REG_DRIVER_FEATURES, FEATURE_VERSION_1);
    store(slot, REG_DRIVER_FEATURES_SEL, 0);
    store(slot, REG_DRIVER_FEATURES, disk->features);
    store(slot, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if ((load(slot, REG_STATUS) & STATUS_FEATURES_OK) == 0)
        return -UK_EPROTO;

    store(slot, REG_QUEUE_SEL, 0);
    if (load(slot, REG_QUEUE_NUM_MAX) < QUEUE_SIZE)
        return -UK_EPROTO;
    store(slot, REG_QUEUE_NUM, QUEUE_SIZE);
    store_address(slot, REG_QUEUE_DESC, disk->descriptors);
    store_address(slot, REG_QUEUE_DRIVER, disk->available_ring);
    store_address(slot, REG_QUEUE_DEVICE, disk->used_ring);
    store(slot, REG_QUEUE_READY, 1);
    if (load(slot, REG_QUEUE_READY) != 1)
        return -UK_EPROTO;
    disk->size = (load(slot, REG_CONFIG) | (uint64_t)load(slot, REG_CONFIG + 4) << 32) * UK_SECTOR_SIZE;
    store(slot, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    return 0;
}

int uk_disk_open(uint32_t slot, struct uk_disk **opened)
{
    if (entry_of(slot) == NULL)
        return -UK_ENODEV;
    if (disks[slot] != NULL) {
        *opened = disks[slot];
        return 0;
    }

    struct uk_disk *disk = uk_alloc_pages((sizeof *disk + UK_PAGE_SIZE - 1) / UK_PAGE_SIZE);
    disk->slot = slot;
    disk->spin_cycles = uk_tsc_khz() * SPIN_US / 1000;
    disk->descriptors = uk_alloc_pages(1);
    disk->available_ring = uk_alloc_pages(1);
    disk->used_ring = uk_alloc_pages(1);
    disk->available_ring->flags = AVAIL_NO_INTERRUPT;
    for (uint16_t i = 0; i < QUEUE_SIZE; i++)
        disk->descriptors[i].next = (uint16_t)(i + 1);
    disk->free_count = QUEUE_SIZE;
    int error = start(disk);
    if (error == 0)
        *opened = disks[slot] = disk;
    return error;
}

uint64_t uk_disk_size(const struct uk_disk *disk)
{
    return disk->size;
}

bool uk_disk_read_only(const struct uk_disk *disk)
{
    return (disk->features & FEATURE_READ_ONLY) != 0;
}

static int check(const struct uk_disk *disk, const struct uk_disk_request *request)
{
    bool transfers = request->op == UK_DISK_READ || request->op == UK_DISK_WRITE;
    bool zeroes = request->op == UK_DISK_DISCARD || request->op == UK_DISK_WRITE_ZEROES;
    if (!transfers && !zeroes && request->op != UK_DISK_FLUSH)
        return -UK_EINVAL;
    if (request->op != UK_DISK_FLUSH) {
        if ((request->offset | request->length) % UK_SECTOR_SIZE != 0 || request->length == 0 || request->offset > disk->size
            || request->length > disk->size - request->offset)
            return -UK_EINVAL;
        if (transfers ? request->length > UK_DISK_MAX_TRANSFER : request->length / UK_SECTOR_SIZE > MAX_RANGE_SECTORS)
            return -UK_EINVAL;
    }
    return request->op != UK_DISK_READ && request->op != UK_DISK_FLUSH && uk_disk_read_only(disk) ? -UK_EROFS : 0;
}

/* Appends a descriptor to the chain that ends in *last. */
static void append(struct uk_disk *disk, uint16_t *last, const volatile void *address, uint32_t length, uint16_t flags)
{
    uint16_t index = disk->free;
    struct descriptor *descriptor = &disk->descriptors[index];
    disk->free = descriptor->next;
    disk->free_count--;
    descriptor->address = (uintptr_t)address;
    descriptor->length = length;
    descriptor->flags = flags;
    if (*last != QUEUE_SIZE) {
        disk->descriptors[*last].flags |= DESC_NEXT;
        disk->descriptors[*last].next = index;
    }
    *last = index;
}

int uk_disk_submit(struct uk_disk *disk, struct uk_disk_request *request)
{
    int error = check(disk, request);
    if (error != 0)
        return error;
    bool transfers = request->op == UK_DISK_READ || request->op == UK_DISK_WRITE;
    bool zeroes = !transfers && request->op != UK_DISK_FLUSH;
    uint64_t segments = transfers ? (request->length + SEGMENT_SIZE - 1) / SEGMENT_SIZE : zeroes;
    if (disk->free_count < segments + 2)
        return -UK_EAGAIN;

    request->status = UK_DISK_PENDING;
    request->header.type = request->op;
    request->header.reserved = 0;
    request->header.sector = transfers ? request->offset / UK_SECTOR_SIZE : 0;
    uint16_t head = disk->free;
    uint16_t last = QUEUE_SIZE;
    append(disk, &last, &request->header, sizeof request->header, 0);
    if (transfers) {
        uint16_t flags = request->op == UK_DISK_READ ? DESC_WRITE : 0;
        for (uint64_t done = 0; done < request->length; done += SEGMENT_SIZE) {
            uint64_t left = request->length - done;
            append(disk, &last, (char *)request->data + done, (uint32_t)(left < SEGMENT_SIZE ? left : SEGMENT_SIZE), flags);
        }
    } else if (zeroes) {
        request->range.sector = request->offset / UK_SECTOR_SIZE;
        request->range.sectors = (uint32_t)(request->length / UK_SECTOR_SIZE);
        request->range.flags = 0;
        append(disk, &last, &request->range, sizeof request->range, 0);
    }
    append(disk, &last, &request->result, 1, DESC_WRITE);

    disk->owners[head] = request;
    disk->available_ring->ring[disk->available % QUEUE_SIZE] = head;
    disk->available++;
    return 0;
}

void uk_disk_kick(struct uk_disk *disk)
{
    if (disk->kicked == disk->available)
        return;
    /* The disk looks at what the index publishes. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    disk->available_ring->index = disk->available;
    disk->kicked = disk->available;

    /* Either the disk sees the index, or we see that it wants to be told. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if ((disk->used_ring->flags & USED_NO_NOTIFY) == 0)
        store(disk->slot, REG_QUEUE_NOTIFY, 0);
}

uint32_t uk_disk_poll(struct uk_disk *disk)
{
    uint32_t done = 0;
    while (disk->used != disk->used_ring->index) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        uint32_t head = disk->used_ring->ring[disk->used % QUEUE_SIZE].id;
        struct uk_disk_request *request = head < QUEUE_SIZE ? disk->owners[head] : NULL;
        /* What was not asked for, or is done already, cannot be done. */
        if (request == NULL)
            uk_abort(UK_EPROTO);
        disk->owners[head] = NULL;
        uint16_t index = (uint16_t)head;
        for (;;) {
            struct descriptor *descriptor = &disk->descriptors[index];
            disk->free_count++;
            if ((descriptor->flags & DESC_NEXT) == 0) {
                descriptor->next = disk->free;
                break;
            }
            index = descriptor->next;
        }
        disk->free = (uint16_t)head;
        disk->used++;
        request->status = request->result == 0 ? 0 : -UK_EIO;
        done++;
    }
    return done;
}

int uk_disk_await(struct uk_disk *disk, struct uk_disk_request *request)
{
    uint64_t start = uk_rdtsc();
    for (;;) {
        /* Its result comes from another processor, and need not wait until the ring says whose it is. */
        if (disk->used != disk->used_ring->index)
            __builtin_prefetch((const void *)&request->result);
        uint32_t done = uk_disk_poll(disk);
        if (request->status != UK_DISK_PENDING)
            return request->status;
        /* A disk that does others will soon do this one: to sleep would stop it half way. */
        uint64_t now = uk_rdtsc();
        if (done != 0)
            start = now;
        else if (now - start >= disk->spin_cycles)
            break;
        __builtin_ia32_pause();
    }

    /* Either the disk sees that it is to tell, or we see that it is done. */
    disk->available_ring->flags = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (;;) {
        uk_disk_poll(disk);
        if (request->status != UK_DISK_PENDING)
            break;
        uk_wait(UK_NEVER, UK_EVENT_DISK);
        store(disk->slot, REG_INTERRUPT_ACK, load(disk->slot, REG_INTERRUPT_STATUS));
    }
    disk->available_ring->flags = AVAIL_NO_INTERRUPT;
    return request->status;
}

static int carry_out(struct uk_disk *disk, enum uk_disk_op op, uint64_t offset, void *data, uint64_t length)
{
    struct uk_disk_request request = { .op = op, .offset = offset, .data = data, .length = length };
    int error;
    while ((error = uk_disk_submit(disk, &request)) == -UK_EAGAIN) {
        uk_disk_kick(disk);
        uk_disk_poll(disk);
    }
    if (error != 0)
        return error;
    uk_disk_kick(disk);
    return uk_disk_await(disk, &request);
}

static int transfer(struct uk_disk *disk, enum uk_disk_op op, uint64_t offset, char *data, uint64_t length)
{
    int error = 0;
    while (error == 0 && length != 0) {
        uint64_t part = length < UK_DISK_MAX_TRANSFER ? length : UK_DISK_MAX_TRANSFER;
        error = carry_out(disk, op, offset, data, part);
        offset += part;
        data += part;
        length -= part;
    }
    return error;
}

int uk_disk_read(struct uk_disk *disk, uint64_t offset, void *data, uint64_t length)
{
    return transfer(disk, UK_DISK_READ, offset, data, length);
}

int uk_disk_write(struct uk_disk *disk, uint64_t offset, const void *data, uint64_t length)
{
    return transfer(disk, UK_DISK_WRITE, offset, (char *)data, length);
}

int uk_disk_flush(struct uk_disk *disk)
{
    return carry_out(disk, UK_DISK_FLUSH, 0, NULL, 0);
}

int uk_disk_discard(struct uk_disk *disk, uint64_t offset, uint64_t length)
{
    return carry_out(disk, UK_DISK_DISCARD, offset, NULL, length);
}

int uk_disk_write_zeroes(struct uk_disk *disk, uint64_t offset, uint64_t length)
{
    return carry_out(disk, UK_DISK_WRITE_ZEROES, offset, NULL, length);
}
