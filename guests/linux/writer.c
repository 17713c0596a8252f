/*
 * A program for Linux without a C library: writes files that can be checked, and checks them.
 *
 *     linux-writer write FOLDER FILE    writes FOLDER/1, FOLDER/2 and so on, each with a checksum and fsynced with its folder before FILE, a line,
 *                                       names it as the last one; ends once there is a file FILE.stop
 *     linux-writer check FOLDER N       prints how many of FOLDER/1 to FOLDER/N are what was written
 *     linux-writer time                 prints the wall clock in milliseconds
 */

typedef unsigned char u8;
typedef unsigned long u64;

enum {
    SYS_READ = 0, SYS_WRITE = 1, SYS_OPEN = 2, SYS_CLOSE = 3, SYS_ACCESS = 21, SYS_NANOSLEEP = 35, SYS_EXIT = 60, SYS_FSYNC = 74, SYS_RENAME = 82, SYS_CLOCK_GETTIME = 228,
    SYS_GETRANDOM = 318
};
enum { O_RDONLY = 0, O_WRONLY = 1, O_CREAT = 0100, O_TRUNC = 01000 };

/* So large that a file is more than a page, and ends in the middle of one. */
enum { SIZE = 6000, CHECKSUM = sizeof(u64), PATH = 256 };

struct timespec {
    long seconds, nanoseconds;
};

static u8 content[SIZE];

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static long length_of(const char *text)
{
    long length = 0;
    while (text[length] != 0) length++;
    return length;
}

static void fail(const char *text)
{
    call(SYS_WRITE, 2, (long)"linux-writer: ", 14);
    call(SYS_WRITE, 2, (long)text, length_of(text));
    call(SYS_WRITE, 2, (long)"\n", 1);
    call(SYS_EXIT, 1, 0, 0);
    __builtin_unreachable();
}

static int same(const char *a, const char *b)
{
    while (*a != 0 && *a == *b) a++, b++;
    return *a == *b;
}

/* A number as a line; its length. */
static long print(char *line, u64 number)
{
    char digits[20];
    long count = 0, length = 0;
    do digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0) line[length++] = digits[--count];
    line[length++] = '\n';
    return length;
}

static u64 parse(const char *text)
{
    u64 number = 0;
    for (; *text >= '0' && *text <= '9'; text++) number = number * 10 + (u64)(*text - '0');
    if (*text != 0) fail("not a number");
    return number;
}

static void join(char *path, const char *first, const char *second)
{
    if (length_of(first) + length_of(second) >= PATH) fail("a path is too long");
    while (*first != 0) *path++ = *first++;
    while (*second != 0) *path++ = *second++;
    *path = 0;
}

static void path_of(char *path, const char *folder, u64 number)
{
    char name[24] = "/";
    name[print(name + 1, number)] = 0;
    join(path, folder, name);
}

/* FNV-1a, from the number of the file on: one that has the content of another is wrong as well. */
static u64 checksum_of(u64 number)
{
    u64 sum = 0xCBF29CE484222325 ^ number;
    for (int i = CHECKSUM; i < SIZE; i++) sum = (sum ^ content[i]) * 0x100000001B3;
    return sum;
}

static void write_file(const char *path, const void *bytes, long length, int is_synced)
{
    long file = call(SYS_OPEN, (long)path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || call(SYS_WRITE, file, (long)bytes, length) != length) fail("a file cannot be written");
    if (is_synced && call(SYS_FSYNC, file, 0, 0) != 0) fail("a file cannot be synced");
    call(SYS_CLOSE, file, 0, 0);
}

static void write_files(const char *folder, const char *last)
{
    char path[PATH], next[PATH], stop[PATH], line[24];
    join(stop, last, ".stop");
    join(next, last, ".next");
    long root = call(SYS_OPEN, (long)folder, O_RDONLY, 0);
    if (root < 0) fail("the folder cannot be opened");
    for (u64 number = 1; call(SYS_ACCESS, (long)stop, 0, 0) != 0; number++) {
        for (int at = CHECKSUM; at < SIZE;) {
            long got = call(SYS_GETRANDOM, (long)(content + at), SIZE - at, 0);
            if (got <= 0) fail("there are no random bytes");
            at += (int)got;
        }
        *(u64 *)content = checksum_of(number);
        path_of(path, folder, number);
        write_file(path, content, SIZE, 1);
        if (call(SYS_FSYNC, root, 0, 0) != 0) fail("the folder cannot be synced");

        /* Whoever reads the number reads a whole one. */
        write_file(next, line, print(line, number), 0);
        if (call(SYS_RENAME, (long)next, (long)last, 0) != 0) fail("the last one cannot be named");

        /* Clones of the machine that writes have to get on as well. */
        struct timespec pause = { 0, 250000000 };
        call(SYS_NANOSLEEP, (long)&pause, 0, 0);
    }
}

static u64 check_files(const char *folder, u64 count)
{
    char path[PATH];
    u64 good = 0;
    for (u64 number = 1; number <= count; number++) {
        path_of(path, folder, number);
        long file = call(SYS_OPEN, (long)path, O_RDONLY, 0);
        if (file < 0) continue;
        long got = call(SYS_READ, file, (long)content, SIZE);
        u8 more;
        good += got == SIZE && call(SYS_READ, file, (long)&more, 1) == 0 && *(u64 *)content == checksum_of(number);
        call(SYS_CLOSE, file, 0, 0);
    }
    return good;
}

__attribute__((used)) static void run(long *stack)
{
    long count = stack[0];
    const char **arguments = (const char **)(stack + 1);
    char line[24];
    if (count == 4 && same(arguments[1], "write")) {
        write_files(arguments[2], arguments[3]);
    } else if (count == 4 && same(arguments[1], "check")) {
        call(SYS_WRITE, 1, (long)line, print(line, check_files(arguments[2], parse(arguments[3]))));
    } else if (count == 2 && same(arguments[1], "time")) {
        struct timespec now;
        call(SYS_CLOCK_GETTIME, 0, (long)&now, 0);
        call(SYS_WRITE, 1, (long)line, print(line, (u64)now.seconds * 1000 + (u64)now.nanoseconds / 1000000));
    } else {
        fail("usage: linux-writer write FOLDER FILE | check FOLDER N | time");
    }
    call(SYS_EXIT, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall run\n\tud2\n");
