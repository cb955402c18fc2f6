/* Asks for the numbers of a process with the C reader as often as it is told, and says in a line of
 * JSON how long that took: `device N`, `counter N`, `process N`, `freshness N`, `sync N`. Started with
 * a process id and the directory of tables; reader.py is the same in Python. */
#include <time.h>

#include "ttmem.h"

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Does it so often; 0: each time it worked. */
static int ask(struct ttmem_table *table, const char *what, const uint64_t *counter, unsigned long times) {
    struct ttmem_device device;
    struct ttmem_process process;
    int failed = 0;
#define TIMES(call)                                \
    for (unsigned long i = 0; i < times; ++i) {    \
        failed |= (call) != TTMEM_OK;              \
        __asm__ volatile("" : : : "memory");       \
    }
    if (strcmp(what, "device") == 0) {
        TIMES(ttmem_query_device(table, 0, &device));
    } else if (strcmp(what, "counter") == 0) {
        TIMES(ttmem_load(counter) == TTMEM_UNKNOWN);
    } else if (strcmp(what, "process") == 0) {
        TIMES(ttmem_query_process(table, &process));
    } else if (strcmp(what, "freshness") == 0) {
        TIMES(ttmem_freshness(table));
    } else if (strcmp(what, "sync") == 0) {
        TIMES(ttmem_sync(table, 10000));
    } else {
        failed = 1;
    }
    return failed;
}

int main(int count, char **words) {
    struct ttmem_table table;
    if (count != 3 || ttmem_open(&table, atoll(words[1]), words[2]) != TTMEM_OK) {
        fprintf(stderr, "cannot open the table: %s\n", count == 3 ? table.error : "give a process id and a directory");
        return 1;
    }
    const uint64_t *counter = ttmem_counter(&table, 0, TTMEM_DRAM, TTMEM_POOL_USED_BYTES);
    printf("{\"ready\":true}\n");
    fflush(stdout);
    char line[64], what[16];
    unsigned long times;
    while (fgets(line, sizeof line, stdin) != NULL) {
        const int words_read = sscanf(line, "%15s %lu", what, &times);
        const uint64_t start = now();
        if (words_read != 2 || ask(&table, what, counter, times) != 0) {
            printf("{\"error\":\"%s did not work: %s\"}\n", what, table.error);
        } else {
            printf("{\"ns\":%" PRIu64 ",\"events\":%lu}\n", now() - start, times);
        }
        fflush(stdout);
    }
    ttmem_close(&table);
    return 0;
}
