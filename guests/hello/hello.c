/* Says what the platform told it: size, arguments, environment. */
#include "unikraft.h"

int main(int argc, char **argv)
{
    uk_printf("Hello from a flat guest: %u vCPU(s), %lu MiB\n", uk_info()->vcpus, uk_info()->ram_bytes >> 20);
    for (int i = 0; i < argc; i++)
        uk_printf("arg[%d]=%s\n", i, argv[i]);
    for (char **entry = (char **)uk_info()->envp; *entry != NULL; entry++)
        uk_printf("env %s\n", *entry);
    return 0;
}
