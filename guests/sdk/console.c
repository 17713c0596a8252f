/* Console: formatted output, a line buffer for each vCPU, and lines of input. */
#include "sdk.h"

#define WRITE_MAX 65536u

int uk_write(const void *bytes, size_t length)
{
    for (const char *from = bytes; length != 0;) {
        struct uk_result result = uk_call(UK_OP_CONSOLE_WRITE, (uintptr_t)from, length < WRITE_MAX ? length : WRITE_MAX);
        if (result.status != 0)
            return result.status;
        if (result.ret[0] == 0 || result.ret[0] > length)
            return -UK_EPROTO;
        from += result.ret[0];
        length -= result.ret[0];
    }
    return 0;
}

int64_t uk_read(void *bytes, size_t capacity)
{
    struct uk_result result = uk_call(UK_OP_CONSOLE_READ, (uintptr_t)bytes, capacity);
    if (result.status != 0)
        return result.status;
    return result.ret[0] <= capacity ? (int64_t)result.ret[0] : -UK_EPROTO;
}

void uk_flush(void)
{
    struct uk_cpu *cpu = uk_this_cpu();
    uint32_t length = cpu->line_length;
    cpu->line_length = 0;
    /* A console that fails leaves nowhere to say so. */
    (void)uk_write(cpu->line, length);
}

static void put(char byte)
{
    struct uk_cpu *cpu = uk_this_cpu();
    cpu->line[cpu->line_length++] = byte;
    if (byte == '\n' || cpu->line_length == UK_LINE_SIZE)
        uk_flush();
}

static void fill(char byte, int count)
{
    while (count-- > 0)
        put(byte);
}

/* One conversion: [sign][zeros]text, padded to a width. */
struct field {
    int width;
    int precision; /* -1: not given */
    bool left;
    bool zero;
};

static void put_text(const struct field *field, const char *text, int length)
{
    if (!field->left)
        fill(' ', field->width - length);
    for (int i = 0; i < length; i++)
        put(text[i]);
    if (field->left)
        fill(' ', field->width - length);
}

static void put_number(const struct field *field, uint64_t value, unsigned base, bool upper, const char *prefix)
{
    const char *symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char digits[20];
    int count = 0;
    for (; value != 0; value /= base)
        digits[count++] = symbols[value % base];

    int prefix_length = (int)strlen(prefix);
    int wanted = field->precision >= 0 ? field->precision
               : field->zero && !field->left && field->width > prefix_length ? field->width - prefix_length : 1;
    int zeros = wanted > count ? wanted - count : 0;
    int padding = field->width - prefix_length - zeros - count;

    if (!field->left)
        fill(' ', padding);
    for (int i = 0; i < prefix_length; i++)
        put(prefix[i]);
    fill('0', zeros);
    while (count > 0)
        put(digits[--count]);
    if (field->left)
        fill(' ', padding);
}

static int parse_count(const char **format, va_list *args)
{
    if (**format == '*') {
        ++*format;
        return va_arg(*args, int);
    }
    int count = 0;
    for (; **format >= '0' && **format <= '9'; ++*format)
        count = count * 10 + (**format - '0');
    return count;
}

void uk_vprintf(const char *format, va_list list)
{
    va_list args;
    va_copy(args, list);
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }

        struct field field = { .precision = -1 };
        for (format++; *format == '-' || *format == '0'; format++)
            *(*format == '-' ? &field.left : &field.zero) = true;
        field.width = parse_count(&format, &args);
        if (field.width < 0) {
            field.left = true;
            field.width = -field.width;
        }
        if (*format == '.') {
            format++;
            field.precision = parse_count(&format, &args);
        }
        bool wide = false;
        for (; *format == 'l' || *format == 'z' || *format == 'h'; format++)
            wide |= *format != 'h';

        switch (*format) {
        case 'd':
        case 'i': {
            int64_t value = wide ? va_arg(args, int64_t) : va_arg(args, int);
            put_number(&field, value < 0 ? -(uint64_t)value : (uint64_t)value, 10, false, value < 0 ? "-" : "");
            break;
        }
        case 'u':
        case 'x':
        case 'X': {
            uint64_t value = wide ? va_arg(args, uint64_t) : va_arg(args, unsigned);
            put_number(&field, value, *format == 'u' ? 10 : 16, *format == 'X', "");
            break;
        }
        case 'p':
            put_number(&field, (uintptr_t)va_arg(args, void *), 16, false, "0x");
            break;
        case 's': {
            const char *text = va_arg(args, const char *);
            text = text != NULL ? text : "(null)";
            int length = 0;
            while ((field.precision < 0 || length < field.precision) && text[length] != '\0')
                length++;
            put_text(&field, text, length);
            break;
        }
        case 'c': {
            char byte = (char)va_arg(args, int);
            put_text(&field, &byte, 1);
            break;
        }
        case '%':
            put('%');
            break;
        default:
            /* The compiler checks formats; what it lets through and we do not know would misread the arguments. */
            uk_abort(UK_EINVAL);
        }
    }
    va_end(args);
}

void uk_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    uk_vprintf(format, args);
    va_end(args);
}

bool uk_read_line(char *line, size_t capacity)
{
    static char input[UK_LINE_SIZE];
    static size_t length;

    for (;;) {
        const char *newline = memchr(input, '\n', length);
        if (newline != NULL || length == sizeof input) {
            size_t size = newline != NULL ? (size_t)(newline - input) : length;
            size_t used = newline != NULL ? size + 1 : size;
            if (size != 0 && input[size - 1] == '\r')
                size--;
            size = size < capacity ? size : capacity - 1;
            memcpy(line, input, size);
            line[size] = '\0';
            length -= used;
            memmove(input, input + used, length);
            return true;
        }
        int64_t read = uk_read(input + length, sizeof input - length);
        if (read <= 0)
            return false;
        length += (size_t)read;
    }
}
