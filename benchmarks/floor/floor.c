/*
 * The floor: the least a KVM program must do to boot a flat guest, in C, without locks, layers or a runtime in the way.
 * What the library needs above this is its own cost. Follows docs/guest-abi.md.
 *
 *   floor run [--memory-mb N] [--vcpus N] [--env NAME=value]... [--stop-after-ms N] [--grace-ms N] ELF [ARGUMENT]...
 *   floor exit-roundtrip ELF COUNT       nanoseconds of each NOP call of exits.elf, one a line
 *   floor boot ELF MEMORY_MB COUNT       nanoseconds from before KVM_CREATE_VM to INIT_LEVEL 127, one a line
 *   floor pause ELF MEMORY_MB PAGES COUNT [busy]
 *                                        nanoseconds that counter.elf stands still for a snapshot, from the kick until it
 *                                        goes on, when it dirtied PAGES pages since the last round of copying
 *   floor pause-guest ELF MEMORY_MB PAGES COUNT [busy]
 *                                        the same as the guest sees it: the largest gap in its time stamp counter. Unless it
 *                                        is busy, a second vCPU does nothing but look
 *   floor pause-rate ELF MEMORY_MB RATE COUNT
 *                                        nanoseconds that a counter.elf stands still which dirties RATE random pages a second
 *   floor stop-and-copy ELF MEMORY_MB COUNT [busy]
 *                                        nanoseconds that counter.elf stands still for a copy of all of its memory
 *   floor write ELF MEMORY_MB PAGES COUNT
 *                                        nanoseconds of counter.elf's first write to a page after a snapshot, mean of PAGES
 *   floor fork ELF MEMORY_MB COUNT cold|pooled
 *                                        nanoseconds until a copy of a sleeping counter.elf has left the guest for the first
 *                                        time, from nothing or from a VM made in advance
 *   floor branch ELF MEMORY_MB PAGES COUNT
 *                                        nanoseconds until a branch of a sleeping counter.elf that dirtied PAGES pages since
 *                                        the last one has left the guest for the first time, on a VM made in advance
 *   floor clone-rate ELF MEMORY_MB SECONDS boot|fork
 *                                        how many guests a core starts and ends in each second, by a process for each core:
 *                                        hello.elf until main, or copies of a sleeping counter.elf until their first exit
 *   floor clones ELF MEMORY_MB COUNT     bytes of the host's memory that each of COUNT such copies takes when it has dirtied
 *                                        10 pages
 *   floor transfer FILE COUNT            how long COUNT random reads of 4 KiB take by one thread, over how long they take when
 *                                        another thread asks for each through a split virtqueue and waits; both spin
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 0x1000ul
#define HUGE_PAGE 0x200000ul
#define MAX_VCPUS 8
#define MAX_CPUID 256
#define ABI_VERSION 0x00010001u

/* The platform area. Where things lie in it is our own business. */
#define GDT 0x1000ul /* 128 bytes for each vCPU */
#define IDT 0x2000ul
#define STUBS 0x3000ul /* 16 bytes for each vector */
#define TSS 0x4000ul /* 128 bytes for each vCPU */
#define RING0_STACKS 0x5000ul /* for each vCPU one page for faults, and one for #DF and NMI */
#define TABLES 0x20000ul
#define TABLES_END 0xF0000ul

/* What the guest sees. */
#define INFO 0xF0000ul
#define STRINGS 0xF1000ul
#define STRINGS_END 0xFC000ul
#define CALL_BLOCKS 0xFC000ul
#define SYSCALL_LANDING 0xFD000ul
#define DEVICE 0xFE000ul
#define FAULT_PAGE 0xFF000ul
#define IMAGE_MIN 0x100000ul
#define STACK_SIZE 0x40000ul
#define HEAP_WINDOW_END 0x8000000000ul
#define DEVICE_GPA 0x4000000000ul
#define FAULT_GPA (DEVICE_GPA + PAGE)

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 32, PTE_D = 64, PTE_HUGE = 128 };
#define PTE_NX (1ul << 63)
#define PTE_ADDRESS 0x000FFFFFFFFFF000ul
#define USER_RW (PTE_U | PTE_W | PTE_NX)

enum { NOP, INIT_LEVEL, EXIT_CODE, STOP, POWER_OFF, CONSOLE_WRITE, CONSOLE_READ, WAIT, CLOCK, RANDOM, WAKE, TEMPLATE, FORK };
enum { OK, EXP, MATH, INVLOP, PGFAULT, SEGFAULT, HWERR, SECERR };

#define EVENT_STOP 1u
#define EVENT_INPUT 2u
#define EVENT_WAKE 0x80000000u

struct info {
    uint32_t magic, version;
    uint64_t ram_bytes;
    uint32_t vcpus, argc;
    uint64_t argv, envp, heap_start, heap_end, tsc_khz;
    uint8_t generation_id[16], instance_uuid[16];
    uint32_t events, stack_size;
};

struct call {
    uint32_t op;
    int32_t status;
    uint64_t arg[4], ret[2], reserved;
};

enum outcome { CALL_DONE, MAIN_REACHED, ASLEEP, ENDED };

struct vcpu {
    struct vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool woken, kill, nmi_sent, asleep;
    struct cut *cut; /* to be taken */
};

struct vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    struct {
        struct kvm_msrs header;
        struct kvm_msr_entry entries[2];
    } msrs;
};

/* What counter.elf lets others look at after `watch`. */
struct watched {
    uint64_t since, gap_cycles, samples;
};

/* What is taken while the guest stands still. */
struct cut {
    uint64_t *log;
    uint8_t *staging; /* present memory for the pages */
    uint64_t pages;
    bool takes_all; /* not only what the log names */
    const struct watched *watched; /* or NULL */
    uint64_t samples; /* its samples at the time */
    unsigned arriving, leaving; /* vCPUs that are still to do so */
    bool complete;
    uint64_t resumed_ns; /* 0 as long as the guest stands still */
    struct vcpu_state state[MAX_VCPUS];
};

struct image {
    const uint8_t *file;
    size_t size;
};

struct vm {
    int fd;
    uint8_t *ram;
    uint64_t ram_bytes;
    uint64_t next_table;
    uint64_t stacks; /* the lowest guard page */
    uint64_t heap_start;
    uint64_t entry;
    uint64_t boot_ns;
    unsigned vcpus;
    struct vcpu vcpu[MAX_VCPUS];

    unsigned level, shutdown;
    bool exited, stopped;
    int32_t exit_code;
    uint32_t stop_code;
    bool faulted;
    unsigned vector;
    uint64_t fault_rip, fault_cr2;

    bool returns_at_wait; /* a vCPU that goes to sleep is left instead */
    FILE *console;
    unsigned lines;
    char line[128]; /* the last one, as far as it fits */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char input[65536];
    size_t input_length;
};

/* Asked once for a process. */
static struct {
    int kvm;
    size_t run_size;
    struct kvm_cpuid2 *cpuid;
    uint64_t xcr0;
    uint64_t cr4;
} host;

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "floor: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    exit(2);
}

static int must(int result, const char *what)
{
    if (result < 0)
        die("%s: %s", what, strerror(errno));
    return result;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- Guest memory ----------------------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static uint64_t *table(struct vm *vm, uint64_t address)
{
    return (uint64_t *)(vm->ram + address);
}

static uint64_t new_table(struct vm *vm)
{
    if (vm->next_table == TABLES_END)
        die("the page tables do not fit: image or RAM is too large");
    vm->next_table += PAGE;
    return vm->next_table - PAGE;
}

/* The entry that maps va at this level (1 = 4 KiB, 2 = 2 MiB). */
static uint64_t *entry_of(struct vm *vm, uint64_t va, int level)
{
    uint64_t *entry = &table(vm, TABLES)[va >> 39 & 511];
    for (int at = 3; at >= level; at--) {
        if (*entry == 0)
            *entry = new_table(vm) | PTE_P | PTE_W | PTE_U | PTE_A;
        entry = &table(vm, *entry & PTE_ADDRESS)[va >> (12 + 9 * (at - 1)) & 511];
    }
    return entry;
}

static void map(struct vm *vm, uint64_t va, uint64_t gpa, uint64_t size, uint64_t flags)
{
    /* Accessed and dirty are set in advance, so that the CPU has no reason to write to our tables. */
    flags |= PTE_P | PTE_A | PTE_D;
    for (uint64_t end = va + size; va != end;) {
        bool huge = (va | gpa) % HUGE_PAGE == 0 && end - va >= HUGE_PAGE;
        *entry_of(vm, va, huge ? 2 : 1) = gpa | flags | (huge ? PTE_HUGE : 0);
        va += huge ? HUGE_PAGE : PAGE;
        gpa += huge ? HUGE_PAGE : PAGE;
    }
}

static uint64_t flags_of(struct vm *vm, uint64_t va)
{
    uint64_t entry = table(vm, TABLES)[va >> 39 & 511];
    for (int at = 3; at >= 1; at--) {
        if (!(entry & PTE_P) || entry & PTE_HUGE)
            break;
        entry = table(vm, entry & PTE_ADDRESS)[va >> (12 + 9 * (at - 1)) & 511];
    }
    return entry;
}

/* Guest memory that a call may name, or NULL. The guest cannot change the tables: it never enters ring 0. */
static uint8_t *user_memory(struct vm *vm, uint64_t va, uint64_t length, bool write)
{
    uint64_t wanted = PTE_P | PTE_U | (write ? PTE_W : 0);
    if (va < IMAGE_MIN || va > vm->ram_bytes || length > vm->ram_bytes - va)
        return NULL;
    for (uint64_t page = va & -PAGE; page < va + length; page += PAGE)
        if ((flags_of(vm, page) & wanted) != wanted)
            return NULL;
    return vm->ram + va;
}

static struct info *info(struct vm *vm)
{
    return (struct info *)(vm->ram + INFO);
}

/* ---- Building a machine ----------------------------------------------------------------------------------------- */

static uint64_t load_image(struct vm *vm, const struct image *image)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)image->file;
    if (image->size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0
        || header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 || header->e_type != ET_EXEC
        || header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff > image->size
        || header->e_phnum > (image->size - header->e_phoff) / sizeof(Elf64_Phdr))
        die("not a static x86-64 ELF program");

    const Elf64_Phdr *segments = (const Elf64_Phdr *)(image->file + header->e_phoff);
    uint64_t end = IMAGE_MIN;
    for (unsigned i = 0; i < header->e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type != PT_LOAD || segment->p_memsz == 0)
            continue;
        /* Segments are sorted by address, so this also refuses those that overlap or share a page. */
        if (segment->p_vaddr < end || segment->p_filesz > segment->p_memsz || segment->p_offset > image->size
            || segment->p_filesz > image->size - segment->p_offset || segment->p_vaddr > vm->ram_bytes
            || segment->p_memsz > vm->ram_bytes - segment->p_vaddr)
            die("segment %u does not fit", i);
        memcpy(vm->ram + segment->p_vaddr, image->file + segment->p_offset, segment->p_filesz);
        uint64_t start = segment->p_vaddr & -PAGE;
        end = round_up(segment->p_vaddr + segment->p_memsz, PAGE);
        map(vm, start, start, end - start, PTE_U | (segment->p_flags & PF_W ? PTE_W : 0)
            | (segment->p_flags & PF_X ? 0 : PTE_NX));
    }
    vm->entry = header->e_entry;
    return end;
}

static uint64_t put_strings(struct vm *vm, char **strings, unsigned count, uint64_t *at)
{
    uint64_t pointers = *at;
    uint64_t text = pointers + (count + 1) * sizeof(uint64_t);
    for (unsigned i = 0; i < count; i++) {
        size_t size = strlen(strings[i]) + 1;
        if (text + size > STRINGS_END)
            die("arguments and environment do not fit");
        memcpy(vm->ram + text, strings[i], size);
        table(vm, pointers)[i] = text;
        text += size;
    }
    *at = round_up(text, sizeof(uint64_t));
    return pointers;
}

/* Ring 0 is nothing but this: a stub for each vector tells the platform which one it was, and clobbers no register. */
static void build_ring0(struct vm *vm)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint8_t *stub = vm->ram + STUBS + vector * 16;
        uint32_t fault_page = FAULT_PAGE;
        memcpy(stub, (uint8_t[]){ 0xC7, 0x04, 0x25 }, 3); /* mov dword ptr [FAULT_PAGE], vector */
        memcpy(stub + 3, &fault_page, 4);
        memcpy(stub + 7, &vector, 4);
        memcpy(stub + 11, (uint8_t[]){ 0xF4, 0xEB, 0xFD }, 3); /* hlt; jmp to it */

        uint64_t address = STUBS + vector * 16;
        uint64_t dpl = vector == 3 || vector == 4 ? 3 : 0, ist = vector == 2 || vector == 8 ? 1 : 0;
        uint64_t *gate = table(vm, IDT) + vector * 2;
        gate[0] = (address & 0xFFFF) | 0x10ul << 16 | ist << 32 | (0x8E00ul | dpl << 13) << 32;
    }

    for (unsigned cpu = 0; cpu < vm->vcpus; cpu++) {
        uint8_t *tss = vm->ram + TSS + cpu * 128;
        uint64_t stack = RING0_STACKS + (2 * cpu + 1) * PAGE, ist1 = stack + PAGE;
        memcpy(tss + 4, &stack, 8);
        memcpy(tss + 36, &ist1, 8);
        uint16_t no_io_bitmap = 104;
        memcpy(tss + 102, &no_io_bitmap, 2);

        uint64_t base = TSS + cpu * 128;
        uint64_t *gdt = table(vm, GDT + cpu * 128);
        gdt[2] = 0x00AF9B000000FFFF; /* 0x10 kernel code */
        gdt[3] = 0x00CF93000000FFFF; /* 0x18 kernel data */
        gdt[5] = 0x00CFF3000000FFFF; /* 0x2B user data */
        gdt[6] = 0x00AFFB000000FFFF; /* 0x33 user code */
        gdt[8] = 103 | base << 16 | 0x8Bul << 40; /* 0x40 busy TSS; its base is below 16 MiB */
    }

    memcpy(vm->ram + SYSCALL_LANDING, (uint8_t[]){ 0x0F, 0x0B }, 2);
}

static void build_memory(struct vm *vm, const struct image *image, char **arguments, unsigned argc,
                         char **environment, unsigned envc)
{
    vm->next_table = TABLES + PAGE;
    map(vm, GDT, GDT, TABLES_END - GDT, PTE_W);
    map(vm, INFO, INFO, CALL_BLOCKS - INFO, PTE_U | PTE_NX);
    map(vm, CALL_BLOCKS, CALL_BLOCKS, PAGE, USER_RW);
    map(vm, SYSCALL_LANDING, SYSCALL_LANDING, PAGE, PTE_U);
    map(vm, DEVICE, DEVICE_GPA, PAGE, USER_RW);
    map(vm, FAULT_PAGE, FAULT_GPA, PAGE, PTE_W | PTE_NX);

    vm->stacks = load_image(vm, image);
    vm->heap_start = vm->stacks + vm->vcpus * (PAGE + STACK_SIZE) + PAGE;
    if (vm->heap_start > vm->ram_bytes)
        die("RAM is too small for the image and its stacks");
    for (unsigned cpu = 0; cpu < vm->vcpus; cpu++) {
        uint64_t stack = vm->stacks + cpu * (PAGE + STACK_SIZE) + PAGE;
        map(vm, stack, stack, STACK_SIZE, USER_RW);
    }
    map(vm, vm->heap_start, vm->heap_start, vm->ram_bytes - vm->heap_start, USER_RW);

    build_ring0(vm);

    uint64_t strings = STRINGS;
    *info(vm) = (struct info){
        .magic = 0x49504B55, .version = ABI_VERSION, .ram_bytes = vm->ram_bytes, .vcpus = vm->vcpus, .argc = argc,
        .heap_start = vm->heap_start, .heap_end = vm->ram_bytes, .stack_size = STACK_SIZE,
    };
    info(vm)->argv = put_strings(vm, arguments, argc, &strings);
    info(vm)->envp = put_strings(vm, environment, envc, &strings);
    must((int)getrandom(info(vm)->generation_id, 16, 0), "getrandom");
    must((int)getrandom(info(vm)->instance_uuid, 16, 0), "getrandom");
    info(vm)->instance_uuid[6] = (info(vm)->instance_uuid[6] & 0x0F) | 0x40;
    info(vm)->instance_uuid[8] = (info(vm)->instance_uuid[8] & 0x3F) | 0x80;
}

static void open_host(void)
{
    host.kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    host.run_size = (size_t)must(ioctl(host.kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    host.cpuid = calloc(1, sizeof *host.cpuid + MAX_CPUID * sizeof host.cpuid->entries[0]);
    host.cpuid->nent = MAX_CPUID;
    must(ioctl(host.kvm, KVM_GET_SUPPORTED_CPUID, host.cpuid), "KVM_GET_SUPPORTED_CPUID");

    host.cr4 = 1 << 5 | 1 << 9 | 1 << 10; /* PAE, OSFXSR, OSXMMEXCPT */
    for (unsigned i = 0; i < host.cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *leaf = &host.cpuid->entries[i];
        if (leaf->function == 7 && leaf->index == 0 && leaf->ebx & 1)
            host.cr4 |= 1 << 16; /* FSGSBASE */
        if (leaf->function == 1 && leaf->ecx & 1 << 26)
            host.cr4 |= 1 << 18; /* OSXSAVE */
        if (leaf->function == 0xD && leaf->index == 0)
            host.xcr0 = leaf->eax & 7; /* x87, SSE, AVX */
    }
}

static void set_registers(struct vcpu *cpu)
{
    struct kvm_sregs sregs;
    must(ioctl(cpu->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    struct kvm_segment data = { .limit = 0xFFFFFFFF, .selector = 0x2B, .type = 3, .present = 1, .dpl = 3, .db = 1,
                                .s = 1, .g = 1 };
    struct kvm_segment code = { .limit = 0xFFFFFFFF, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .l = 1,
                                .s = 1, .g = 1 };
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.tr = (struct kvm_segment){ .base = TSS + cpu->index * 128, .limit = 103, .selector = 0x40, .type = 11,
                                     .present = 1 };
    sregs.ldt = (struct kvm_segment){ .unusable = 1 };
    sregs.gdt = (struct kvm_dtable){ .base = GDT + cpu->index * 128, .limit = 9 * 8 + 7 };
    sregs.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xFFF };
    sregs.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
    sregs.cr3 = TABLES;
    sregs.cr4 = host.cr4;
    sregs.efer = 0xD00; /* NXE, LMA, LME; no SCE */
    must(ioctl(cpu->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");

    if (host.cr4 & 1 << 18) {
        struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = host.xcr0 } };
        must(ioctl(cpu->fd, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS");
    }

    struct {
        struct kvm_msrs header;
        struct kvm_msr_entry entries[3];
    } msrs = { .header.nmsrs = 3, .entries = {
        { .index = 0xC0000081, .data = 0x10ul << 32 | 0x23ul << 48 }, /* STAR */
        { .index = 0xC0000082, .data = SYSCALL_LANDING }, /* LSTAR */
        { .index = 0xC0000084, .data = 0x47700 }, /* FMASK */
    } };
    if (must(ioctl(cpu->fd, KVM_SET_MSRS, &msrs), "KVM_SET_MSRS") != 3)
        die("KVM_SET_MSRS: one was refused");

    struct kvm_regs regs = {
        .rip = cpu->vm->entry, .rdi = INFO, .rsi = cpu->index, .rflags = 2,
        .rsp = cpu->vm->stacks + (cpu->index + 1) * (PAGE + STACK_SIZE),
    };
    must(ioctl(cpu->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void create(struct vm *vm, const struct image *image, uint64_t memory_mb, unsigned vcpus, char **arguments,
                   unsigned argc, char **environment, unsigned envc)
{
    vm->vcpus = vcpus;
    vm->ram_bytes = memory_mb << 20;
    if (vm->ram_bytes > DEVICE_GPA)
        die("RAM would reach the device's physical address");
    vm->fd = must(ioctl(host.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    struct kvm_enable_cap manual = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 1 } };
    must(ioctl(vm->fd, KVM_ENABLE_CAP, &manual), "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");

    vm->ram = mmap(NULL, vm->ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vm->ram == MAP_FAILED)
        die("mmap of %lu MiB: %s", memory_mb, strerror(errno));
    build_memory(vm, image, arguments, argc, environment, envc);

    struct kvm_userspace_memory_region region = { .flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = vm->ram_bytes,
                                                  .userspace_addr = (uint64_t)vm->ram };
    must(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

    for (unsigned i = 0; i < vcpus; i++) {
        struct vcpu *cpu = &vm->vcpu[i];
        cpu->vm = vm;
        cpu->index = i;
        cpu->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
        cpu->run = mmap(NULL, host.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
        if (cpu->run == MAP_FAILED)
            die("mmap of kvm_run: %s", strerror(errno));
        must(ioctl(cpu->fd, KVM_SET_CPUID2, host.cpuid), "KVM_SET_CPUID2");
        set_registers(cpu);
    }
    int khz = ioctl(vm->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);
    info(vm)->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
    vm->boot_ns = now_ns();
}

static void destroy(struct vm *vm)
{
    for (unsigned i = 0; i < vm->vcpus; i++) {
        munmap(vm->vcpu[i].run, host.run_size);
        close(vm->vcpu[i].fd);
    }
    close(vm->fd);
    munmap(vm->ram, vm->ram_bytes);
}

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

static void get_log(struct vm *vm, uint64_t *log)
{
    struct kvm_dirty_log request = { .dirty_bitmap = log };
    must(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &request), "KVM_GET_DIRTY_LOG");
}

/* A round of copying while the guest runs. */
static void copy_round(struct vm *vm, uint64_t *log, uint8_t *to)
{
    get_log(vm, log);
    struct kvm_clear_dirty_log clear = { .num_pages = (uint32_t)(vm->ram_bytes / PAGE), .dirty_bitmap = log };
    must(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear), "KVM_CLEAR_DIRTY_LOG");
    for (uint64_t word = 0; word < vm->ram_bytes / PAGE / 64; word++)
        for (uint64_t bits = log[word]; bits != 0; bits &= bits - 1) {
            uint64_t at = (word * 64 + (uint64_t)__builtin_ctzl(bits)) * PAGE;
            memcpy(to + at, vm->ram + at, PAGE);
        }
}

/* With no exit of the vCPU pending. */
static void save_state(struct vcpu *cpu, struct vcpu_state *state)
{
    must(ioctl(cpu->fd, KVM_GET_REGS, &state->regs), "KVM_GET_REGS");
    must(ioctl(cpu->fd, KVM_GET_SREGS, &state->sregs), "KVM_GET_SREGS");
    must(ioctl(cpu->fd, KVM_GET_XSAVE, &state->xsave), "KVM_GET_XSAVE");
    must(ioctl(cpu->fd, KVM_GET_XCRS, &state->xcrs), "KVM_GET_XCRS");
    must(ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &state->events), "KVM_GET_VCPU_EVENTS");
    must(ioctl(cpu->fd, KVM_GET_DEBUGREGS, &state->debugregs), "KVM_GET_DEBUGREGS");
    state->msrs.header.nmsrs = 2;
    state->msrs.entries[0].index = 0xC0000082; /* LSTAR */
    state->msrs.entries[1].index = 0x10; /* TSC */
    if (must(ioctl(cpu->fd, KVM_GET_MSRS, &state->msrs), "KVM_GET_MSRS") != 2)
        die("KVM_GET_MSRS: one was refused");
}

/* On the thread of the vCPU, with no exit of it pending. The last vCPU to arrive does what is done for all. */
static void take_cut(struct vcpu *cpu, struct cut *cut)
{
    struct vm *vm = cpu->vm;
    save_state(cpu, &cut->state[cpu->index]);
    if (__atomic_sub_fetch(&cut->arriving, 1, __ATOMIC_ACQ_REL) == 0) {
        get_log(vm, cut->log);
        cut->pages = 0;
        if (cut->takes_all)
            memcpy(cut->staging, vm->ram, vm->ram_bytes);
        for (uint64_t word = 0; word < vm->ram_bytes / PAGE / 64 && !cut->takes_all; word++)
            for (uint64_t bits = cut->log[word]; bits != 0; bits &= bits - 1)
                memcpy(cut->staging + cut->pages++ * PAGE, vm->ram + (word * 64 + (uint64_t)__builtin_ctzl(bits)) * PAGE,
                       PAGE);
        if (cut->watched != NULL)
            cut->samples = __atomic_load_n(&cut->watched->samples, __ATOMIC_ACQUIRE);
        __atomic_store_n(&cut->complete, true, __ATOMIC_RELEASE);
    }
    while (!__atomic_load_n(&cut->complete, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    if (__atomic_sub_fetch(&cut->leaving, 1, __ATOMIC_ACQ_REL) == 0)
        __atomic_store_n(&cut->resumed_ns, now_ns(), __ATOMIC_RELEASE);
}

static void take_pending_cut(struct vcpu *cpu)
{
    struct cut *cut = __atomic_exchange_n(&cpu->cut, NULL, __ATOMIC_ACQUIRE);
    if (cut != NULL)
        take_cut(cpu, cut);
}

/* Lets KVM finish the instruction that left the guest, so that the registers are those after it. */
static void complete_exit(struct vcpu *cpu)
{
    cpu->run->immediate_exit = 1;
    if (ioctl(cpu->fd, KVM_RUN, 0) == 0 || errno != EINTR)
        die("KVM_RUN: not interrupted");
    cpu->run->immediate_exit = 0;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

static void change_events(struct vm *vm, uint32_t set, uint32_t clear)
{
    __atomic_store_n(&info(vm)->events, (info(vm)->events | set) & ~clear, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&vm->changed);
}

static uint32_t wait_for(struct vcpu *cpu, uint64_t deadline, uint32_t mask)
{
    struct vm *vm = cpu->vm;
    uint64_t absolute = deadline + vm->boot_ns;
    bool never = absolute < deadline;
    struct timespec until = { (time_t)(absolute / 1000000000), (long)(absolute % 1000000000) };
    uint32_t pending;

    pthread_mutex_lock(&vm->lock);
    cpu->asleep = true;
    for (int error = 0;; error = never ? pthread_cond_wait(&vm->changed, &vm->lock)
                                       : pthread_cond_timedwait(&vm->changed, &vm->lock, &until)) {
        if (cpu->cut != NULL) {
            complete_exit(cpu);
            take_pending_cut(cpu);
        }
        pending = (info(vm)->events | (cpu->woken ? EVENT_WAKE : 0)) & mask;
        if (pending != 0 || error == ETIMEDOUT || cpu->kill)
            break;
    }
    cpu->asleep = false;
    if (pending & EVENT_WAKE)
        cpu->woken = false;
    pthread_mutex_unlock(&vm->lock);
    return pending;
}

static int64_t console_read(struct vm *vm, uint64_t va, uint64_t capacity)
{
    uint8_t *to = user_memory(vm, va, capacity, true);
    if (to == NULL)
        return -EFAULT;
    pthread_mutex_lock(&vm->lock);
    size_t length = capacity < vm->input_length ? capacity : vm->input_length;
    memcpy(to, vm->input, length);
    vm->input_length -= length;
    memmove(vm->input, vm->input + length, vm->input_length);
    change_events(vm, 0, vm->input_length == 0 ? EVENT_INPUT : 0);
    pthread_mutex_unlock(&vm->lock);
    return (int64_t)length;
}

static enum outcome end(struct vm *vm, unsigned reason, unsigned error, unsigned level, unsigned shutdown)
{
    vm->stopped = true;
    vm->stop_code = reason | level << 8 | shutdown << 15 | error << 16;
    return ENDED;
}

static enum outcome serve_call(struct vcpu *cpu)
{
    struct vm *vm = cpu->vm;
    volatile struct call *block = (struct call *)(vm->ram + CALL_BLOCKS) + cpu->index;
    uint64_t arg[2] = { block->arg[0], block->arg[1] }, ret[2] = { 0 };
    enum outcome outcome = CALL_DONE;
    int64_t status = 0;

    switch (block->op) {
    case NOP:
        break;
    case INIT_LEVEL:
        if (arg[0] > 127 || arg[1] > 1) {
            status = -EINVAL;
            break;
        }
        vm->level = (unsigned)arg[0];
        vm->shutdown = (unsigned)arg[1];
        outcome = arg[0] == 127 ? MAIN_REACHED : CALL_DONE;
        break;
    case EXIT_CODE:
        vm->exited = true;
        vm->exit_code = (int32_t)arg[0];
        break;
    case STOP:
        if (arg[0] <= 255 && arg[1] <= 255)
            return end(vm, (unsigned)arg[0], (unsigned)arg[1], vm->level, vm->shutdown);
        status = -EINVAL;
        break;
    case POWER_OFF:
        return ENDED;
    case CONSOLE_WRITE: {
        ret[0] = arg[1] < 65536 ? arg[1] : 65536;
        uint8_t *from = user_memory(vm, arg[0], ret[0], false);
        if (from == NULL)
            status = -EFAULT;
        else if (fwrite(from, 1, ret[0], vm->console) != ret[0] || fflush(vm->console) != 0)
            die("writing the console: %s", strerror(errno));
        else if (ret[0] != 0 && from[ret[0] - 1] == '\n') {
            snprintf(vm->line, sizeof vm->line, "%.*s", (int)ret[0] - 1, (const char *)from);
            __atomic_add_fetch(&vm->lines, 1, __ATOMIC_RELEASE);
        }
        break;
    }
    case CONSOLE_READ: {
        int64_t length = console_read(vm, arg[0], arg[1] < 65536 ? arg[1] : 65536);
        status = length < 0 ? length : 0;
        ret[0] = (uint64_t)length;
        break;
    }
    case WAIT:
        if (vm->returns_at_wait)
            return ASLEEP;
        ret[0] = wait_for(cpu, arg[0], (uint32_t)arg[1]);
        break;
    case CLOCK: {
        struct timespec wall;
        clock_gettime(CLOCK_REALTIME, &wall);
        ret[0] = now_ns() - vm->boot_ns;
        ret[1] = (uint64_t)wall.tv_sec * 1000000000 + (uint64_t)wall.tv_nsec;
        break;
    }
    case RANDOM: {
        uint8_t *to = arg[1] <= 4096 ? user_memory(vm, arg[0], arg[1], true) : NULL;
        status = arg[1] > 4096 ? -EINVAL : to == NULL ? -EFAULT : 0;
        for (; status == 0 && ret[0] < arg[1]; )
            ret[0] += (uint64_t)must((int)getrandom(to + ret[0], arg[1] - ret[0], 0), "getrandom");
        break;
    }
    case WAKE:
        if (arg[0] >= vm->vcpus) {
            status = -EINVAL;
            break;
        }
        pthread_mutex_lock(&vm->lock);
        vm->vcpu[arg[0]].woken = true;
        pthread_cond_broadcast(&vm->changed);
        pthread_mutex_unlock(&vm->lock);
        break;
    case TEMPLATE:
        status = -EAGAIN;
        break;
    case FORK:
        status = user_memory(vm, arg[0], 16, true) == NULL ? -EFAULT : -EAGAIN;
        break;
    default:
        status = -ENOSYS;
    }

    if (status == 0) {
        block->ret[0] = ret[0];
        block->ret[1] = ret[1];
    }
    block->status = (int32_t)status;
    return outcome;
}

/* ---- Exceptions ------------------------------------------------------------------------------------------------- */

static enum outcome end_page_fault(struct vm *vm, uint64_t error_code, uint64_t cr2)
{
    bool mapped = error_code & 1;
    if (mapped)
        return end(vm, SECERR, EACCES, vm->level, vm->shutdown);
    if (cr2 >= vm->ram_bytes && cr2 < HEAP_WINDOW_END)
        return end(vm, PGFAULT, ENOMEM, vm->level, vm->shutdown);
    if (cr2 >= vm->stacks && cr2 < vm->heap_start)
        return end(vm, SEGFAULT, ENOMEM, vm->level, vm->shutdown);
    return end(vm, PGFAULT, EFAULT, vm->level, vm->shutdown);
}

static enum outcome serve_fault(struct vcpu *cpu, unsigned vector)
{
    struct vm *vm = cpu->vm;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    must(ioctl(cpu->fd, KVM_GET_REGS, &regs), "KVM_GET_REGS");
    must(ioctl(cpu->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    if (regs.rsp < RING0_STACKS || regs.rsp > TABLES - 6 * 8)
        die("fault %u with rsp=%#llx", vector, regs.rsp);

    bool has_error_code = vector < 32 && (0x60227D00u >> vector & 1); /* 8, 10-14, 17, 21, 29, 30 */
    const uint64_t *frame = (const uint64_t *)(vm->ram + regs.rsp);
    uint64_t error_code = has_error_code ? *frame++ : 0;
    vm->faulted = true;
    vm->vector = vector;
    vm->fault_rip = frame[0];
    vm->fault_cr2 = sregs.cr2;

    switch (vector) {
    case 0: case 16: case 19:
        return end(vm, MATH, 0, vm->level, vm->shutdown);
    case 1: case 3: case 4: case 5: case 6: case 7: case 17:
        return end(vm, INVLOP, 0, vm->level, vm->shutdown);
    case 2:
        return end(vm, EXP, ETIMEDOUT, vm->level, 1);
    case 10: case 11: case 12: case 13:
        return end(vm, SEGFAULT, EFAULT, vm->level, vm->shutdown);
    case 14:
        return end_page_fault(vm, error_code, sregs.cr2);
    case 18:
        return end(vm, HWERR, 0, vm->level, vm->shutdown);
    case 21:
        return end(vm, SECERR, EACCES, vm->level, vm->shutdown);
    default:
        return end(vm, EXP, 0, vm->level, vm->shutdown);
    }
}

/* ---- Running ---------------------------------------------------------------------------------------------------- */

static enum outcome serve_mmio(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->run;
    uint64_t address = run->mmio.phys_addr;
    bool word = run->mmio.len == 4;
    if (run->mmio.is_write) {
        uint32_t value;
        memcpy(&value, run->mmio.data, 4);
        if (word && address == FAULT_GPA)
            return serve_fault(cpu, value & 255);
        return word && address == DEVICE_GPA + 8 ? serve_call(cpu) : CALL_DONE;
    }
    uint32_t value = word && address == DEVICE_GPA ? 0x44504B55 : word && address == DEVICE_GPA + 4 ? ABI_VERSION : ~0u;
    memset(run->mmio.data, 0xFF, sizeof run->mmio.data);
    memcpy(run->mmio.data, &value, 4);
    return CALL_DONE;
}

/* Runs until main is reached or the machine has ended. */
static enum outcome run_vcpu(struct vcpu *cpu)
{
    struct vm *vm = cpu->vm;
    for (;;) {
        if (ioctl(cpu->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR)
                die("KVM_RUN: %s", strerror(errno));
            __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
            take_pending_cut(cpu);
            if (cpu->kill && !cpu->nmi_sent) {
                must(ioctl(cpu->fd, KVM_NMI, 0), "KVM_NMI");
                cpu->nmi_sent = true;
            }
            continue;
        }
        switch (cpu->run->exit_reason) {
        case KVM_EXIT_MMIO: {
            enum outcome outcome = serve_mmio(cpu);
            if (outcome != CALL_DONE)
                return outcome;
            break;
        }
        case KVM_EXIT_SHUTDOWN:
            return end(vm, EXP, ENOTRECOVERABLE, vm->level, vm->shutdown);
        case KVM_EXIT_INTERNAL_ERROR:
            /* An instruction that cannot be used on a device page: VMX and SVM raise #UD for it, PVM comes here. */
            if (cpu->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
                return end(vm, INVLOP, 0, vm->level, vm->shutdown);
            /* fall through */
        default: {
            struct kvm_regs regs = { 0 };
            ioctl(cpu->fd, KVM_GET_REGS, &regs);
            die("exit reason %u (suberror %u) at rip=%#llx", cpu->run->exit_reason, cpu->run->internal.suberror, regs.rip);
        }
        }
    }
}

/* ---- floor run -------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t memory_mb, vcpus, stop_after_ms, grace_ms;
    char *environment[256];
    unsigned envc;
} options = { .memory_mb = 64, .vcpus = 1, .stop_after_ms = UINT64_MAX, .grace_ms = 500 };

static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;

static void *run_to_the_end(void *argument)
{
    struct vcpu *cpu = argument;
    struct vm *vm = cpu->vm;
    while (run_vcpu(cpu) == MAIN_REACHED)
        ;

    /* The process ends with the first vCPU that says how; the others are still in the guest. */
    pthread_mutex_lock(&report_lock);
    char exit_code[16] = "none", stop_code[16] = "none";
    if (vm->exited)
        snprintf(exit_code, sizeof exit_code, "%d", vm->exit_code);
    if (vm->stopped)
        snprintf(stop_code, sizeof stop_code, "0x%08X", vm->stop_code);
    fprintf(stderr, "exit_code=%s stop_code=%s fault ", exit_code, stop_code);
    if (vm->faulted)
        fprintf(stderr, "vector=%u rip=%#lx cr2=%#lx\n", vm->vector, vm->fault_rip, vm->fault_cr2);
    else
        fprintf(stderr, "none\n");
    fflush(stderr);
    _exit(0);
}

static void *read_input(void *argument)
{
    struct vm *vm = argument;
    char bytes[4096];
    for (ssize_t length; (length = read(STDIN_FILENO, bytes, sizeof bytes)) > 0;) {
        pthread_mutex_lock(&vm->lock);
        while (vm->input_length + (size_t)length > sizeof vm->input)
            pthread_cond_wait(&vm->changed, &vm->lock);
        memcpy(vm->input + vm->input_length, bytes, (size_t)length);
        vm->input_length += (size_t)length;
        change_events(vm, EVENT_INPUT, 0);
        pthread_mutex_unlock(&vm->lock);
    }
    return NULL;
}

static void sleep_ms(uint64_t ms)
{
    nanosleep(&(struct timespec){ (time_t)(ms / 1000), (long)(ms % 1000 * 1000000) }, NULL);
}

static void *stop_in_time(void *argument)
{
    struct vm *vm = argument;
    sleep_ms(options.stop_after_ms);
    pthread_mutex_lock(&vm->lock);
    change_events(vm, EVENT_STOP, 0);
    pthread_mutex_unlock(&vm->lock);

    sleep_ms(options.grace_ms);
    struct vcpu *cpu = &vm->vcpu[0];
    pthread_mutex_lock(&vm->lock);
    cpu->kill = true;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_RELEASE);
    pthread_kill(cpu->thread, SIGUSR1);
    return NULL;
}

static void on_kick(int signal)
{
    (void)signal;
}

static void start_thread(void *(*function)(void *), void *argument, pthread_t *thread)
{
    if (pthread_create(thread, NULL, function, argument) != 0)
        die("cannot start a thread");
}

static void init_vm(struct vm *vm, FILE *console)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->changed, &monotonic);
    pthread_mutex_init(&vm->lock, NULL);
    vm->console = console;
}

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-')
        die("not a number: %s", text);
    return value;
}

static struct image read_image(const char *path)
{
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
    struct stat status;
    must(fstat(fd, &status), path);
    struct image image = { .size = (size_t)status.st_size };
    uint8_t *bytes = malloc(image.size + 1);
    size_t length = 0;
    for (ssize_t part; length < image.size && (part = read(fd, bytes + length, image.size - length)) > 0;)
        length += (size_t)part;
    if (length != image.size)
        die("%s: cannot be read", path);
    close(fd);
    image.file = bytes;
    return image;
}

static int command_run(char **arguments)
{
    for (; arguments[0] != NULL && strncmp(arguments[0], "--", 2) == 0; arguments += 2) {
        if (arguments[1] == NULL)
            die("%s needs a value", arguments[0]);
        if (strcmp(arguments[0], "--memory-mb") == 0)
            options.memory_mb = number(arguments[1]);
        else if (strcmp(arguments[0], "--vcpus") == 0)
            options.vcpus = number(arguments[1]);
        else if (strcmp(arguments[0], "--stop-after-ms") == 0)
            options.stop_after_ms = number(arguments[1]);
        else if (strcmp(arguments[0], "--grace-ms") == 0)
            options.grace_ms = number(arguments[1]);
        else if (strcmp(arguments[0], "--env") == 0 && options.envc < 256)
            options.environment[options.envc++] = arguments[1];
        else
            die("unknown option %s", arguments[0]);
    }
    unsigned argc = 0;
    while (arguments[argc] != NULL)
        argc++;
    if (argc == 0 || options.vcpus == 0 || options.vcpus > MAX_VCPUS || options.memory_mb == 0)
        die("run needs an ELF file, 1 to %d vCPUs and some memory", MAX_VCPUS);

    static struct vm vm;
    struct image image = read_image(arguments[0]);
    sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_kick }, NULL);
    init_vm(&vm, stdout);
    create(&vm, &image, options.memory_mb, (unsigned)options.vcpus, arguments, argc, options.environment, options.envc);

    pthread_t helper;
    for (unsigned i = 0; i < vm.vcpus; i++)
        start_thread(run_to_the_end, &vm.vcpu[i], &vm.vcpu[i].thread);
    start_thread(read_input, &vm, &helper);
    if (options.stop_after_ms != UINT64_MAX)
        start_thread(stop_in_time, &vm, &helper);
    pthread_join(vm.vcpu[0].thread, NULL);
    return 0;
}

/* ---- Measures --------------------------------------------------------------------------------------------------- */

static int command_exit_roundtrip(const char *path, char *count)
{
    char *output, *arguments[] = { (char *)path, count };
    size_t size;
    static struct vm vm;
    struct image image = read_image(path);
    init_vm(&vm, open_memstream(&output, &size));
    create(&vm, &image, 64 + (number(count) >> 18), 1, arguments, 2, NULL, 0);
    while (run_vcpu(&vm.vcpu[0]) == MAIN_REACHED)
        ;
    fclose(vm.console);

    uint64_t khz, cycles, samples = 0;
    char *line = strtok(output, "\n");
    if (line == NULL || sscanf(line, "tsc_khz=%lu", &khz) != 1 || khz == 0)
        die("%s does not behave like exits.elf", path);
    while ((line = strtok(NULL, "\n")) != NULL && sscanf(line, "%lu", &cycles) == 1) {
        printf("%lu\n", (uint64_t)((unsigned __int128)cycles * 1000000 / khz));
        samples++;
    }
    if (line == NULL || strcmp(line, "done") != 0 || samples != number(count))
        die("%s ended after %lu samples with stop code 0x%08X", path, samples, vm.stop_code);
    return 0;
}

static int command_boot(const char *path, uint64_t memory_mb, uint64_t count)
{
    char *arguments[] = { (char *)path };
    struct image image = read_image(path);
    static struct vm vm;
    uint64_t *elapsed = calloc(count, sizeof *elapsed);
    for (uint64_t i = 0; i < count; i++) {
        memset(&vm, 0, sizeof vm);
        init_vm(&vm, stdout);
        uint64_t start = now_ns();
        create(&vm, &image, memory_mb, 1, arguments, 1, NULL, 0);
        enum outcome outcome = run_vcpu(&vm.vcpu[0]);
        elapsed[i] = now_ns() - start;
        if (outcome != MAIN_REACHED)
            die("%s did not reach main: stop code 0x%08X", path, vm.stop_code);
        destroy(&vm);
    }
    for (uint64_t i = 0; i < count; i++)
        printf("%lu\n", elapsed[i]);
    return 0;
}

static void *run_measured(void *argument)
{
    struct vcpu *cpu = argument;
    while (run_vcpu(cpu) == MAIN_REACHED)
        ;
    die("the guest ended with stop code 0x%08X", cpu->vm->stop_code);
}

/* Gives the counter a command that it answers with a line. It has gone on to wait, or to spin, when this returns. */
static void command(struct vm *vm, const char *line)
{
    unsigned lines = vm->lines;
    pthread_mutex_lock(&vm->lock);
    vm->input_length = strlen(line);
    memcpy(vm->input, line, vm->input_length);
    change_events(vm, EVENT_INPUT, 0);
    pthread_mutex_unlock(&vm->lock);
    while (__atomic_load_n(&vm->lines, __ATOMIC_ACQUIRE) == lines)
        sleep_ms(1);
    sleep_ms(2);
}

/* The mean time of a write, by the counter itself. */
static uint64_t time_writes(struct vm *vm)
{
    uint64_t ns;
    command(vm, "write\n");
    if (sscanf(vm->line, "write_ns=%lu", &ns) != 1)
        die("the counter answered '%s'", vm->line);
    return ns;
}

/* Lets the counter forget the gaps so far. It looks for the next one when this returns. */
static uint64_t watch(struct vm *vm, struct cut *cut)
{
    uint64_t at, khz;
    command(vm, "watch\n");
    if (sscanf(vm->line, "watching_at=%lu tsc_khz=%lu", &at, &khz) != 2 || at > vm->ram_bytes - sizeof *cut->watched)
        die("the counter answered '%s'", vm->line);
    cut->watched = (const struct watched *)(vm->ram + at);
    while (__atomic_load_n(&cut->watched->since, __ATOMIC_ACQUIRE) == 0)
        sleep_ms(1);
    return khz;
}

/* The largest gap that the counter has seen by now, that of the cut included. */
static uint64_t gap_ns(const struct cut *cut, uint64_t khz)
{
    while (__atomic_load_n(&cut->watched->samples, __ATOMIC_ACQUIRE) - cut->samples < 2)
        nanosleep(&(struct timespec){ 0, 100000 }, NULL);
    return __atomic_load_n(&cut->watched->gap_cycles, __ATOMIC_ACQUIRE) * 1000000 / khz;
}

static uint64_t measure_pause(struct vm *vm, struct cut *cut)
{
    cut->resumed_ns = 0;
    cut->complete = false;
    cut->arriving = cut->leaving = vm->vcpus;
    bool asleep[MAX_VCPUS];
    uint64_t start = now_ns();
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < vm->vcpus; i++) {
        asleep[i] = vm->vcpu[i].asleep;
        __atomic_store_n(&vm->vcpu[i].cut, cut, __ATOMIC_RELEASE);
    }
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->vcpus; i++)
        if (!asleep[i]) {
            __atomic_store_n(&vm->vcpu[i].run->immediate_exit, 1, __ATOMIC_RELEASE);
            pthread_kill(vm->vcpu[i].thread, SIGUSR1);
        }

    /* Looks now and then: to be told would cost the vCPU a wake-up in the pause. */
    uint64_t resumed;
    while ((resumed = __atomic_load_n(&cut->resumed_ns, __ATOMIC_ACQUIRE)) == 0)
        nanosleep(&(struct timespec){ 0, 100000 }, NULL);
    return resumed - start;
}

static uint8_t *present_memory(uint64_t size)
{
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap of %lu bytes: %s", size, strerror(errno));
    return memory;
}

#define MAX_ARGUMENTS 16

/* What a counter that sleeps, or spins, is started with, besides its name and the size of its arena. */
struct counter {
    uint64_t memory_mb;
    unsigned vcpus, argc;
    char *arguments[MAX_ARGUMENTS];
    char arena[24];
};

static void describe_counter(struct counter *counter, const char *path, uint64_t memory_mb, char *pages, char **more)
{
    if (memory_mb < 32)
        die("counter needs 32 MiB");
    counter->memory_mb = memory_mb;
    counter->vcpus = 1;
    snprintf(counter->arena, sizeof counter->arena, "%lu", memory_mb - 8);
    char *common[] = { (char *)path, "--period-ms", "0", "--quiet", "--touch", "--pages", pages, "--arena-mb",
                       counter->arena };
    memcpy(counter->arguments, common, sizeof common);
    counter->argc = sizeof common / sizeof common[0];
    for (; *more != NULL; more++)
        counter->arguments[counter->argc++] = *more;
}

/* Starts a counter on threads of its own. It has touched all of its memory when this returns. */
static void start_counter(struct vm *vm, struct counter *counter)
{
    struct image image = read_image(counter->arguments[0]);
    sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_kick }, NULL);
    init_vm(vm, fopen("/dev/null", "w"));
    create(vm, &image, counter->memory_mb, counter->vcpus, counter->arguments, counter->argc, NULL, 0);
    for (unsigned i = 0; i < vm->vcpus; i++)
        start_thread(run_measured, &vm->vcpu[i], &vm->vcpu[i].thread);
    command(vm, "tick\n");
}

static _Noreturn void print_and_exit(const uint64_t *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        printf("%lu\n", values[i]);
    fflush(stdout);
    _exit(0); /* the guest still runs */
}

static int command_pause(const char *path, uint64_t memory_mb, char *pages, uint64_t count, bool busy, bool in_guest)
{
    static struct vm vm;
    static struct cut cut;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, pages,
                     (char *[]){ "--random", busy ? "--busy" : in_guest ? "--watch" : NULL, NULL });
    counter.vcpus = in_guest && !busy ? 2 : 1;
    start_counter(&vm, &counter);
    uint8_t *copy = present_memory(vm.ram_bytes);
    cut.log = (uint64_t *)present_memory(vm.ram_bytes / PAGE / 8);
    cut.staging = present_memory(2 * (number(pages) + 512) * PAGE);
    uint64_t *elapsed = calloc(count, sizeof *elapsed);

    copy_round(&vm, cut.log, copy);
    for (uint64_t i = 0; i < count; i++) {
        copy_round(&vm, cut.log, copy);
        copy_round(&vm, cut.log, copy);
        command(&vm, "tick\n");
        uint64_t khz = in_guest ? watch(&vm, &cut) : 0;
        elapsed[i] = measure_pause(&vm, &cut);
        if (cut.pages < number(pages) || cut.pages > number(pages) + 64)
            die("%lu pages were dirty instead of %s", cut.pages, pages);
        if (in_guest)
            elapsed[i] = gap_ns(&cut, khz);
    }
    print_and_exit(elapsed, count);
}

static int command_pause_rate(const char *path, uint64_t memory_mb, char *rate, uint64_t count)
{
    static struct vm vm;
    static struct cut cut;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, "1", (char *[]){ "--random", "--busy", "--rate", rate, NULL });
    start_counter(&vm, &counter);
    uint8_t *copy = present_memory(vm.ram_bytes);
    cut.log = (uint64_t *)present_memory(vm.ram_bytes / PAGE / 8);
    cut.staging = present_memory(vm.ram_bytes);
    uint64_t *elapsed = calloc(count, sizeof *elapsed);

    copy_round(&vm, cut.log, copy);
    for (uint64_t i = 0; i < count; i++) {
        copy_round(&vm, cut.log, copy);
        copy_round(&vm, cut.log, copy);
        copy_round(&vm, cut.log, copy);
        elapsed[i] = measure_pause(&vm, &cut);
        sleep_ms(20);
    }
    print_and_exit(elapsed, count);
}

static int command_stop_and_copy(const char *path, uint64_t memory_mb, uint64_t count, bool busy)
{
    static struct vm vm;
    static struct cut cut;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, "1", (char *[]){ "--random", busy ? "--busy" : NULL, NULL });
    start_counter(&vm, &counter);
    cut.log = (uint64_t *)present_memory(vm.ram_bytes / PAGE / 8);
    cut.staging = present_memory(vm.ram_bytes);
    cut.takes_all = true;
    uint64_t *elapsed = calloc(count, sizeof *elapsed);
    for (uint64_t i = 0; i < count; i++)
        elapsed[i] = measure_pause(&vm, &cut);
    print_and_exit(elapsed, count);
}

static int command_write(const char *path, uint64_t memory_mb, char *pages, uint64_t count)
{
    static struct vm vm;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, pages, (char *[]){ NULL });
    start_counter(&vm, &counter);
    uint8_t *copy = present_memory(vm.ram_bytes);
    uint64_t *log = (uint64_t *)present_memory(vm.ram_bytes / PAGE / 8);
    uint64_t *elapsed = calloc(count, sizeof *elapsed);

    copy_round(&vm, log, copy);
    for (uint64_t i = 0; i < count; i++) {
        copy_round(&vm, log, copy);
        copy_round(&vm, log, copy);
        elapsed[i] = time_writes(&vm);
    }
    print_and_exit(elapsed, count);
}

/* ---- Copies of a guest ------------------------------------------------------------------------------------------ */

/* A counter that sleeps, for copies to begin with. */
struct origin {
    int memory;
    uint64_t ram_bytes;
    struct vcpu_state state;
};

static struct vm origin_vm;

static void make_origin(struct origin *origin, struct counter *counter)
{
    struct vm *vm = &origin_vm;
    struct image image = read_image(counter->arguments[0]);
    init_vm(vm, fopen("/dev/null", "w"));
    vm->returns_at_wait = true;
    create(vm, &image, counter->memory_mb, 1, counter->arguments, counter->argc, NULL, 0);
    enum outcome outcome;
    while ((outcome = run_vcpu(&vm->vcpu[0])) == MAIN_REACHED)
        ;
    if (outcome != ASLEEP)
        die("the guest ended with stop code 0x%08X", vm->stop_code);
    complete_exit(&vm->vcpu[0]);
    save_state(&vm->vcpu[0], &origin->state);

    origin->ram_bytes = vm->ram_bytes;
    origin->memory = must(memfd_create("floor", MFD_CLOEXEC), "memfd_create");
    must(ftruncate(origin->memory, (off_t)vm->ram_bytes), "ftruncate");
    for (uint64_t at = 0; at < vm->ram_bytes; at += PAGE) {
        static const uint8_t zero[PAGE];
        if (memcmp(vm->ram + at, zero, PAGE) != 0 && pwrite(origin->memory, vm->ram + at, PAGE, (off_t)at) != PAGE)
            die("writing the copy: %s", strerror(errno));
    }
}

/* A VM with a vCPU. Its memory is the origin's, or, without one, still empty. */
static void make_shell(struct vm *vm, uint64_t ram_bytes, const struct origin *origin)
{
    memset(vm, 0, offsetof(struct vm, input));
    vm->vcpus = 1;
    vm->ram_bytes = ram_bytes;
    vm->fd = must(ioctl(host.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    struct kvm_enable_cap manual = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 1 } };
    must(ioctl(vm->fd, KVM_ENABLE_CAP, &manual), "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
    vm->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_NORESERVE | (origin == NULL ? MAP_ANONYMOUS : 0), origin == NULL ? -1 : origin->memory, 0);
    if (vm->ram == MAP_FAILED)
        die("mmap of %lu bytes: %s", ram_bytes, strerror(errno));
    struct kvm_userspace_memory_region region = { .flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = ram_bytes,
                                                  .userspace_addr = (uint64_t)vm->ram };
    must(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

    struct vcpu *cpu = &vm->vcpu[0];
    cpu->vm = vm;
    cpu->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    cpu->run = mmap(NULL, host.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED)
        die("mmap of kvm_run: %s", strerror(errno));
    must(ioctl(cpu->fd, KVM_SET_CPUID2, host.cpuid), "KVM_SET_CPUID2");
}

/* Ends the sleep that the origin was in, and makes the copy another one. */
static void wake_up(struct vm *vm, uint32_t events)
{
    must((int)getrandom(info(vm)->generation_id, 16, 0), "getrandom");
    must((int)getrandom(info(vm)->instance_uuid, 16, 0), "getrandom");
    info(vm)->events |= events;
    struct call *block = (struct call *)(vm->ram + CALL_BLOCKS);
    block->ret[0] = events;
    block->ret[1] = 0;
    block->status = 0;
}

static void load_extended_state(struct vcpu *cpu, const struct vcpu_state *state)
{
    must(ioctl(cpu->fd, KVM_SET_XCRS, &state->xcrs), "KVM_SET_XCRS");
    must(ioctl(cpu->fd, KVM_SET_XSAVE, &state->xsave), "KVM_SET_XSAVE");
    must(ioctl(cpu->fd, KVM_SET_DEBUGREGS, &state->debugregs), "KVM_SET_DEBUGREGS");
    if (must(ioctl(cpu->fd, KVM_SET_MSRS, &state->msrs), "KVM_SET_MSRS") != 2)
        die("KVM_SET_MSRS: one was refused");
}

static void load_state(struct vcpu *cpu, const struct vcpu_state *state)
{
    must(ioctl(cpu->fd, KVM_SET_SREGS, &state->sregs), "KVM_SET_SREGS");
    load_extended_state(cpu, state);
    must(ioctl(cpu->fd, KVM_SET_REGS, &state->regs), "KVM_SET_REGS");
    must(ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, &state->events), "KVM_SET_VCPU_EVENTS");
}

static void run_to_first_exit(struct vcpu *cpu)
{
    must(ioctl(cpu->fd, KVM_RUN, 0), "KVM_RUN");
    if (cpu->run->exit_reason != KVM_EXIT_MMIO || cpu->run->mmio.phys_addr != DEVICE_GPA + 8)
        die("the copy left the guest for reason %u", cpu->run->exit_reason);
}

static uint64_t fork_cold(struct vm *vm, const struct origin *origin)
{
    uint64_t start = now_ns();
    make_shell(vm, origin->ram_bytes, origin);
    load_state(&vm->vcpu[0], &origin->state);
    wake_up(vm, EVENT_INPUT);
    run_to_first_exit(&vm->vcpu[0]);
    return now_ns() - start;
}

/* A VM that waits for the memory and the state of a copy. */
static void make_ready(struct vm *vm, uint64_t ram_bytes)
{
    make_shell(vm, ram_bytes, NULL);
    complete_exit(&vm->vcpu[0]); /* a first KVM_RUN, which prepares what KVM leaves until then */
}

static void map_over(struct vm *vm, int memory)
{
    if (mmap(vm->ram, vm->ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, memory, 0) == MAP_FAILED)
        die("mmap over the shell: %s", strerror(errno));
}

static void run_copy(struct vm *vm, const struct vcpu_state *state)
{
    struct vcpu *cpu = &vm->vcpu[0];
    load_extended_state(cpu, state);
    cpu->run->s.regs.regs = state->regs;
    cpu->run->s.regs.sregs = state->sregs;
    cpu->run->s.regs.events = state->events;
    cpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    wake_up(vm, EVENT_INPUT);
    run_to_first_exit(cpu);
}

static uint64_t fork_pooled(struct vm *vm, const struct origin *origin)
{
    make_ready(vm, origin->ram_bytes);
    uint64_t start = now_ns();
    map_over(vm, origin->memory);
    run_copy(vm, &origin->state);
    return now_ns() - start;
}

static int command_fork(const char *path, uint64_t memory_mb, uint64_t count, bool pooled)
{
    static struct vm vm;
    static struct origin origin;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, "10", (char *[]){ NULL });
    make_origin(&origin, &counter);
    uint64_t *elapsed = calloc(count, sizeof *elapsed);
    for (uint64_t i = 0; i < count; i++) {
        elapsed[i] = pooled ? fork_pooled(&vm, &origin) : fork_cold(&vm, &origin);
        destroy(&vm);
    }
    print_and_exit(elapsed, count);
}

static int command_branch(const char *path, uint64_t memory_mb, char *pages, uint64_t count)
{
    static struct vm vm, child;
    static struct cut cut;
    static struct counter counter;
    describe_counter(&counter, path, memory_mb, pages, (char *[]){ "--random", NULL });
    start_counter(&vm, &counter);
    uint64_t words = vm.ram_bytes / PAGE / 64;
    uint64_t *log = (uint64_t *)present_memory(words * sizeof *log), *dirty = calloc(words, sizeof *dirty);
    uint8_t *copy = present_memory(vm.ram_bytes);
    cut.log = (uint64_t *)present_memory(words * sizeof *log);
    cut.staging = present_memory(2 * (number(pages) + 512) * PAGE);
    uint64_t *elapsed = calloc(count, sizeof *elapsed);

    /* What the branches build on. */
    int parent = must(memfd_create("floor", MFD_CLOEXEC), "memfd_create");
    must(ftruncate(parent, (off_t)vm.ram_bytes), "ftruncate");
    uint8_t *memory = mmap(NULL, vm.ram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, parent, 0);
    if (memory == MAP_FAILED)
        die("mmap of the parent: %s", strerror(errno));
    copy_round(&vm, log, copy);
    memcpy(memory, vm.ram, vm.ram_bytes);

    for (uint64_t i = 0; i < count; i++) {
        make_ready(&child, vm.ram_bytes);
        command(&vm, "tick\n");
        uint64_t start = now_ns();
        memset(dirty, 0, words * sizeof *dirty);
        for (int round = 0; round < 2; round++) {
            copy_round(&vm, log, copy);
            for (uint64_t word = 0; word < words; word++)
                dirty[word] |= log[word];
        }
        measure_pause(&vm, &cut);
        uint64_t staged = 0;
        for (uint64_t word = 0; word < words; word++) {
            dirty[word] |= cut.log[word];
            for (uint64_t bits = cut.log[word]; bits != 0; bits &= bits - 1)
                memcpy(copy + (word * 64 + (uint64_t)__builtin_ctzl(bits)) * PAGE, cut.staging + staged++ * PAGE, PAGE);
        }
        map_over(&child, parent);
        for (uint64_t word = 0; word < words; word++)
            for (uint64_t bits = dirty[word]; bits != 0; bits &= bits - 1) {
                uint64_t at = (word * 64 + (uint64_t)__builtin_ctzl(bits)) * PAGE;
                memcpy(child.ram + at, copy + at, PAGE);
            }
        run_copy(&child, &cut.state[0]);
        elapsed[i] = now_ns() - start;

        destroy(&child);
        for (uint64_t word = 0; word < words; word++)
            for (uint64_t bits = dirty[word]; bits != 0; bits &= bits - 1) {
                uint64_t at = (word * 64 + (uint64_t)__builtin_ctzl(bits)) * PAGE;
                memcpy(memory + at, copy + at, PAGE);
            }
    }
    print_and_exit(elapsed, count);
}

static int command_clone_rate(const char *path, uint64_t memory_mb, uint64_t seconds, bool boots)
{
    static struct vm vm;
    static struct origin origin;
    static struct counter counter;
    struct image image = read_image(path);
    char *arguments[] = { (char *)path };
    if (!boots) {
        describe_counter(&counter, path, memory_mb, "10", (char *[]){ NULL });
        make_origin(&origin, &counter);
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t *made = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        die("mmap of the count: %s", strerror(errno));
    pid_t *workers = calloc((size_t)cores, sizeof *workers);
    for (long i = 0; i < cores; i++) {
        workers[i] = must(fork(), "fork");
        while (workers[i] == 0) {
            if (boots) {
                memset(&vm, 0, sizeof vm);
                init_vm(&vm, fopen("/dev/null", "w"));
                create(&vm, &image, memory_mb, 1, arguments, 1, NULL, 0);
                if (run_vcpu(&vm.vcpu[0]) != MAIN_REACHED)
                    die("%s did not reach main: stop code 0x%08X", path, vm.stop_code);
                fclose(vm.console);
            } else {
                fork_cold(&vm, &origin);
            }
            destroy(&vm);
            __atomic_add_fetch(made, 1, __ATOMIC_RELAXED);
        }
    }
    for (uint64_t second = 0; second < seconds; second++) {
        uint64_t before = __atomic_load_n(made, __ATOMIC_RELAXED), start = now_ns();
        sleep_ms(1000);
        uint64_t count = __atomic_load_n(made, __ATOMIC_RELAXED) - before;
        printf("%f\n", (double)count * 1e9 / (double)(now_ns() - start) / (double)cores);
    }
    for (long i = 0; i < cores; i++) {
        kill(workers[i], SIGKILL);
        waitpid(workers[i], NULL, 0);
    }
    return 0;
}

/* What the host's memory holds that it could not drop: all but free pages, caches of files and slabs that shrink. */
static int64_t used_bytes(void)
{
    const struct { const char *name; int sign; } fields[] = {
        { "MemTotal:", 1 }, { "MemFree:", -1 }, { "Buffers:", -1 }, { "Cached:", -1 }, { "Shmem:", 1 }, { "SReclaimable:", -1 },
    };
    const unsigned count = sizeof fields / sizeof fields[0];
    FILE *file = fopen("/proc/meminfo", "r");
    if (file == NULL)
        die("/proc/meminfo: %s", strerror(errno));
    int64_t used = 0;
    unsigned found = 0;
    char name[64];
    for (int64_t kib; fscanf(file, "%63s %ld%*[^\n]", name, &kib) == 2;)
        for (unsigned i = 0; i < count; i++)
            if (strcmp(name, fields[i].name) == 0) {
                used += fields[i].sign * kib;
                found++;
            }
    fclose(file);
    if (found != count)
        die("/proc/meminfo is not what it should be");
    return used * 1024;
}

static int command_clones(const char *path, uint64_t memory_mb, uint64_t count)
{
    static struct vm vm;
    static struct origin origin;
    static struct counter counter;
    char ballast[24];
    snprintf(ballast, sizeof ballast, "%lu", memory_mb - 16);
    describe_counter(&counter, path, memory_mb, "10", (char *[]){ "--ballast-mb", ballast, NULL });
    /* The arena is those ten pages, so that a copy dirties the same ones however often it ticks. */
    counter.arguments[2] = "1000";
    snprintf(counter.arena, sizeof counter.arena, "0");
    make_origin(&origin, &counter);

    int64_t before = used_bytes();
    for (uint64_t i = 0; i < count; i++) {
        /* Nothing of it is kept here: it lives until the process ends. */
        make_shell(&vm, origin.ram_bytes, &origin);
        vm.returns_at_wait = true;
        load_state(&vm.vcpu[0], &origin.state);
        wake_up(&vm, 0);
        if (run_vcpu(&vm.vcpu[0]) != ASLEEP)
            die("a copy ended with stop code 0x%08X", vm.stop_code);
        complete_exit(&vm.vcpu[0]);
    }
    sleep_ms(1000);
    int64_t after = used_bytes();
    printf("%ld\n", (after - before) / (int64_t)count);
    return 0;
}

/* ---- Handing reads to another thread ------------------------------------------------------------------------------- */

#define TRANSFER_BYTES 4096u
#define RING_ENTRIES 256u

static struct {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[RING_ENTRIES] __attribute__((aligned(4096)));
    struct {
        _Atomic uint16_t flags, index;
        uint16_t ring[RING_ENTRIES];
    } available __attribute__((aligned(4096)));
    struct {
        _Atomic uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[RING_ENTRIES];
    } used __attribute__((aligned(4096)));
    struct {
        uint64_t type, offset;
    } header __attribute__((aligned(64)));
    uint8_t result __attribute__((aligned(64)));
    char data[TRANSFER_BYTES] __attribute__((aligned(4096)));
    _Atomic bool is_over;
    int file;
} transfer;

static void read_at(int file, void *data, uint64_t offset)
{
    if (pread(file, data, TRANSFER_BYTES, (off_t)offset) != TRANSFER_BYTES)
        die("the file cannot be read");
}

static void *serve_transfers(void *unused)
{
    uint16_t taken = 0;
    while (!transfer.is_over) {
        if (transfer.available.index == taken) {
            __builtin_ia32_pause();
            continue;
        }
        uint16_t head = transfer.available.ring[taken % RING_ENTRIES];
        uint64_t offset = ((uint64_t *)transfer.descriptors[head].address)[1];
        uint16_t data = transfer.descriptors[head].next;
        read_at(transfer.file, (void *)transfer.descriptors[data].address, offset);
        *(uint8_t *)transfer.descriptors[transfer.descriptors[data].next].address = 0;
        transfer.used.ring[taken % RING_ENTRIES].id = head;
        transfer.used.ring[taken % RING_ENTRIES].length = TRANSFER_BYTES + 1;
        taken++;
        atomic_store_explicit(&transfer.used.index, taken, memory_order_release);
    }
    return unused;
}

static void ask_for(uint64_t offset, uint16_t number)
{
    transfer.header.type = 0;
    transfer.header.offset = offset;
    transfer.result = 0xff;
    transfer.descriptors[0].address = (uintptr_t)&transfer.header;
    transfer.descriptors[0].next = 1;
    transfer.descriptors[1].address = (uintptr_t)transfer.data;
    transfer.descriptors[1].next = 2;
    transfer.descriptors[2].address = (uintptr_t)&transfer.result;
    transfer.available.ring[number % RING_ENTRIES] = 0;
    atomic_store_explicit(&transfer.available.index, (uint16_t)(number + 1), memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    while (atomic_load_explicit(&transfer.used.index, memory_order_acquire) == number)
        __builtin_ia32_pause();
    if (transfer.used.ring[number % RING_ENTRIES].id != 0 || transfer.result != 0)
        die("a read was not done");
}

static uint64_t next_offset(uint64_t *state, uint64_t blocks)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % blocks * TRANSFER_BYTES;
}

static int command_transfer(const char *path, uint64_t count)
{
    transfer.file = must(open(path, O_RDONLY | O_CLOEXEC), path);
    uint64_t blocks = (uint64_t)must((int)(lseek(transfer.file, 0, SEEK_END) / TRANSFER_BYTES), path);
    uint64_t state = 88172645463325252ul;
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        read_at(transfer.file, transfer.data, next_offset(&state, blocks));
    uint64_t plain = now_ns() - start;
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve_transfers, NULL) != 0)
        die("there is no further thread");
    start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        ask_for(next_offset(&state, blocks), (uint16_t)i);
    uint64_t handed = now_ns() - start;
    transfer.is_over = true;
    pthread_join(thread, NULL);
    printf("%f\n", (double)plain / (double)handed);
    return 0;
}

/* Makes as many mappings as a managed process has: for each of them KVM_CREATE_VM takes a lock, and some 0.13 us. */
static void add_mappings(uint64_t count)
{
    for (uint64_t made = 0; made < count; made += 2) {
        char *pair = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(pair == MAP_FAILED ? -1 : 0, "mmap");
        pair[0] = 1;
        must(mprotect(pair + PAGE, PAGE, PROT_READ), "mprotect");
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "transfer") == 0)
        return command_transfer(argv[2], number(argv[3]));
    open_host();
    if (argc >= 3 && strcmp(argv[1], "run") == 0)
        return command_run(argv + 2);
    if (argc == 4 && strcmp(argv[1], "exit-roundtrip") == 0)
        return command_exit_roundtrip(argv[2], argv[3]);
    if (argc == 5 && strcmp(argv[1], "boot") == 0)
        return command_boot(argv[2], number(argv[3]), number(argv[4]));
    if ((argc == 6 || (argc == 7 && strcmp(argv[6], "busy") == 0)) && strcmp(argv[1], "pause") == 0)
        return command_pause(argv[2], number(argv[3]), argv[4], number(argv[5]), argc == 7, false);
    if ((argc == 6 || (argc == 7 && strcmp(argv[6], "busy") == 0)) && strcmp(argv[1], "pause-guest") == 0)
        return command_pause(argv[2], number(argv[3]), argv[4], number(argv[5]), argc == 7, true);
    if (argc == 6 && strcmp(argv[1], "pause-rate") == 0)
        return command_pause_rate(argv[2], number(argv[3]), argv[4], number(argv[5]));
    if ((argc == 5 || (argc == 6 && strcmp(argv[5], "busy") == 0)) && strcmp(argv[1], "stop-and-copy") == 0)
        return command_stop_and_copy(argv[2], number(argv[3]), number(argv[4]), argc == 6);
    if (argc == 6 && strcmp(argv[1], "branch") == 0)
        return command_branch(argv[2], number(argv[3]), argv[4], number(argv[5]));
    if (argc == 6 && strcmp(argv[1], "clone-rate") == 0 && (strcmp(argv[5], "boot") == 0 || strcmp(argv[5], "fork") == 0))
        return command_clone_rate(argv[2], number(argv[3]), number(argv[4]), strcmp(argv[5], "boot") == 0);
    if (argc == 6 && strcmp(argv[1], "write") == 0)
        return command_write(argv[2], number(argv[3]), argv[4], number(argv[5]));
    if ((argc == 6 || argc == 7) && strcmp(argv[1], "fork") == 0 && (strcmp(argv[5], "cold") == 0 || strcmp(argv[5], "pooled") == 0)) {
        add_mappings(argc == 7 ? number(argv[6]) : 0);
        return command_fork(argv[2], number(argv[3]), number(argv[4]), strcmp(argv[5], "pooled") == 0);
    }
    if (argc == 5 && strcmp(argv[1], "clones") == 0)
        return command_clones(argv[2], number(argv[3]), number(argv[4]));
    fprintf(stderr, "usage: floor run [--memory-mb N] [--vcpus N] [--env NAME=value]... [--stop-after-ms N] [--grace-ms N]"
                    " ELF [ARGUMENT]...\n"
                    "       floor exit-roundtrip ELF COUNT\n"
                    "       floor boot ELF MEMORY_MB COUNT\n"
                    "       floor pause|pause-guest ELF MEMORY_MB PAGES COUNT [busy]\n"
                    "       floor pause-rate ELF MEMORY_MB RATE COUNT\n"
                    "       floor stop-and-copy ELF MEMORY_MB COUNT [busy]\n"
                    "       floor write ELF MEMORY_MB PAGES COUNT\n"
                    "       floor fork ELF MEMORY_MB COUNT cold|pooled [MAPPINGS]\n"
                    "       floor branch ELF MEMORY_MB PAGES COUNT\n"
                    "       floor clone-rate ELF MEMORY_MB SECONDS boot|fork\n"
                    "       floor clones ELF MEMORY_MB COUNT\n"
                    "       floor transfer FILE COUNT\n");
    return 2;
}
