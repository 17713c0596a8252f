/* The heap grows by touching it. Small blocks are powers of two with a free list for each; large ones are whole pages. */
#include "sdk.h"

#define SMALLEST 32u
#define CLASSES 12u /* 32 bytes ... 64 KiB, header included */
#define LARGEST_CLASS (SMALLEST << (CLASSES - 1))

struct block {
    size_t size; /* header included */
    struct block *next_free;
};

static struct {
    bool locked;
    uintptr_t next;
    uintptr_t end;
    struct block *free[CLASSES + 1]; /* the last one holds large blocks of any size */
} heap;

static void lock(void)
{
    while (__atomic_exchange_n(&heap.locked, true, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void unlock(void)
{
    __atomic_store_n(&heap.locked, false, __ATOMIC_RELEASE);
}

void uk_heap_init(void)
{
    heap.next = uk_info()->heap_start;
    heap.end = uk_info()->heap_end;
}

static _Noreturn void out_of_memory(void)
{
    /* Touching the heap window is how a guest says so: the platform makes the stop code of it. */
    *(volatile char *)heap.end = 0;
    __builtin_trap();
}

static void *grow(size_t size, size_t alignment)
{
    uintptr_t start = (heap.next + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (start > heap.end || size > heap.end - start)
        out_of_memory();
    heap.next = start + size;
    return (void *)start;
}

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    while (class < CLASSES && size > (size_t)SMALLEST << class)
        class++;
    return class;
}

void *uk_alloc(size_t size)
{
    if (size > SIZE_MAX / 2)
        out_of_memory();
    size += sizeof(struct block);
    unsigned class = class_of(size);
    size = class < CLASSES ? (size_t)SMALLEST << class : (size + UK_PAGE_SIZE - 1) & ~(size_t)(UK_PAGE_SIZE - 1);

    lock();
    struct block **link = &heap.free[class];
    while (*link != NULL && (*link)->size < size)
        link = &(*link)->next_free;
    struct block *block = *link;
    if (block != NULL) {
        *link = block->next_free;
    } else {
        block = grow(size, 16);
        block->size = size;
    }
    unlock();
    return block + 1;
}

void uk_free(void *memory)
{
    if (memory == NULL)
        return;
    struct block *block = (struct block *)memory - 1;
    struct block **list = &heap.free[class_of(block->size)];
    lock();
    block->next_free = *list;
    *list = block;
    unlock();
}

void *uk_alloc_pages(size_t count)
{
    if (count > SIZE_MAX / UK_PAGE_SIZE)
        out_of_memory();
    lock();
    void *pages = grow(count * UK_PAGE_SIZE, UK_PAGE_SIZE);
    unlock();
    return pages;
}
