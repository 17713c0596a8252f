/*
 * A program for Linux without a C library: gives the kernel's random number generator new bytes and a new key whenever the machine has become another one. For kernels
 * without a driver for the generation id (CONFIG_VMGENID). Protocol: docs/kernel-guests.md, "The generation port".
 *
 *     linux-reseed [PORT [FILE]]
 *
 * PORT is /dev/ttyS1 unless given. The generation id is written to FILE once its bytes are in use: whoever waits for that draws nothing that another clone draws.
 * Does not end; start it in the background, as early as can be. Needs CAP_SYS_ADMIN.
 */

typedef unsigned char u8;
typedef unsigned int u32;

enum { SYS_READ = 0, SYS_WRITE = 1, SYS_OPEN = 2, SYS_CLOSE = 3, SYS_IOCTL = 16, SYS_EXIT = 60 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_NOCTTY = 0400, O_TRUNC = 01000 };
enum { TCGETS = 0x5401, TCSETS = 0x5402, RNDRESEEDCRNG = 0x5207 };

#define RNDADDENTROPY 0x40085203

enum { IGNBRK = 1, CS8 = 060, CREAD = 0200, CLOCAL = 04000, ICANON = 2, B115200 = 010002 };

enum { ID_DIGITS = 32, SEED_SIZE = 32, LINE_LENGTH = ID_DIGITS + 1 + 2 * SEED_SIZE + 1 };

struct termios {
    u32 input, output, control, local;
    u8 line, characters[19];
};

struct rand_pool_info {
    int entropy_bits, size;
    u8 bytes[SEED_SIZE];
};

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void say(const char *text)
{
    long length = 0;
    while (text[length] != 0) length++;
    call(SYS_WRITE, 2, (long)text, length);
}

static void fail(const char *text)
{
    say("linux-reseed: ");
    say(text);
    say("\n");
    call(SYS_EXIT, 1, 0, 0);
    __builtin_unreachable();
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Anything but a whole line is what was left of an earlier one. */
static int parse(const char *line, long length, u8 *seed)
{
    if (length != LINE_LENGTH || line[ID_DIGITS] != ' ') return 0;
    for (int i = 0; i < ID_DIGITS; i++) {
        if (digit(line[i]) < 0) return 0;
    }
    const char *digits = line + ID_DIGITS + 1;
    for (int i = 0; i < SEED_SIZE; i++) {
        int high = digit(digits[2 * i]), low = digit(digits[2 * i + 1]);
        if (high < 0 || low < 0) return 0;
        seed[i] = (u8)(high << 4 | low);
    }
    return 1;
}

__attribute__((used)) static void run(long *stack)
{
    long count = stack[0];
    const char **arguments = (const char **)(stack + 1);
    long port = call(SYS_OPEN, (long)(count > 1 ? arguments[1] : "/dev/ttyS1"), O_RDWR | O_NOCTTY, 0);
    if (port < 0) fail("the port cannot be opened");
    struct termios mode;
    if (call(SYS_IOCTL, port, TCGETS, (long)&mode) < 0) fail("the port is no serial port");

    /* By lines, and without an echo, which the port would take for questions. */
    mode.input = IGNBRK;
    mode.output = 0;
    mode.control = CS8 | CREAD | CLOCAL | B115200;
    mode.local = ICANON;
    if (call(SYS_IOCTL, port, TCSETS, (long)&mode) < 0) fail("the port cannot be set up");
    long random = call(SYS_OPEN, (long)"/dev/urandom", O_RDONLY, 0);
    if (random < 0) fail("/dev/urandom cannot be opened");

    /* A line that came before the port was open is lost, or half of it is. */
    if (call(SYS_WRITE, port, (long)"?", 1) != 1) fail("the port cannot be written to");
    char line[256];
    for (;;) {
        long length = call(SYS_READ, port, (long)line, sizeof line);
        if (length <= 0) fail("the port cannot be read");
        struct rand_pool_info pool = { .entropy_bits = 8 * SEED_SIZE, .size = SEED_SIZE };
        if (!parse(line, length, pool.bytes)) continue;
        if (call(SYS_IOCTL, random, RNDADDENTROPY, (long)&pool) < 0) fail("the kernel takes no entropy");
        if (call(SYS_IOCTL, random, RNDRESEEDCRNG, 0) < 0) fail("the kernel does not reseed its generator");
        if (count > 2) {
            long file = call(SYS_OPEN, (long)arguments[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
            line[ID_DIGITS] = '\n';
            if (file < 0 || call(SYS_WRITE, file, (long)line, ID_DIGITS + 1) != ID_DIGITS + 1) fail("the file cannot be written");
            call(SYS_CLOSE, file, 0, 0);
        }
    }
}

__asm__(".globl _start\n_start:\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall run\n\tud2\n");
