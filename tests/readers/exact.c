/* Says what becomes of `exact` where a table becomes exact, or ceases to be, while a chip's numbers are read.
 *
 * exact PID DIRECTORY FILE: FILE is the process's table in that directory, and nobody else writes to it. */

static void meanwhile(void);
/* The reader's fence is where the numbers have been read, and it is not known yet whether they count. */
#define __atomic_thread_fence(order) (meanwhile(), __atomic_thread_fence(order))

#include "ttmem.h"

static uint64_t *words;
static uint64_t after;

static void say(uint64_t exact) { __atomic_store_n(words + TTMEM_HEADER_EXACT / 8, exact, __ATOMIC_SEQ_CST); }

static void meanwhile(void) { say(after); }

int main(int argc, char **argv) {
    struct ttmem_table table;
    if (argc != 4 || ttmem_open(&table, atol(argv[1]), argv[2]) != TTMEM_OK) {
        printf("error %s\n", argc == 4 ? table.error : "usage: exact PID DIRECTORY FILE");
        return 1;
    }
    const int file = open(argv[3], O_RDWR | O_CLOEXEC);
    void *const address = mmap(NULL, TTMEM_HEADER_LAST_BYTE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) { /* NOLINT */
        printf("error cannot map %s\n", argv[3]);
        return 1;
    }
    words = (uint64_t *)address;
    for (uint64_t before = 0; before < 2; ++before) {
        for (after = 0; after < 2; ++after) {
            struct ttmem_device device;
            say(before);
            const int result = ttmem_query_device(&table, 0, &device);
            /* Who has written it has ended: once that shows, old numbers are filled in all the same. */
            if (result != TTMEM_OK && result != TTMEM_STALE) {
                printf("error %s\n", table.error);
                return 1;
            }
            printf("before=%d after=%d exact=%d\n", (int)before, (int)after, (int)device.exact);
        }
    }
    ttmem_close(&table);
    return 0;
}
