/* Does what its input says with the C reader, a line for a line: `open PID DIRECTORY`,
 * `query CHIP`, `now CHIP`, `process`. The answers are those of ask.cpp and ask.py. */

#include "ttmem.h"

static int failed(const struct ttmem_table *table, int result) {
    char name[32];
    snprintf(name, sizeof name, "%s", ttmem_result_name(result));
    for (char *at = name; *at != 0; ++at) {
        *at = *at == ' ' ? '-' : *at;
    }
    printf("error %s %s\n", name, table->error);
    return result;
}

static int query(struct ttmem_table *table, int64_t chip, int now) {
    struct ttmem_device device;
    int result = now ? ttmem_sync(table, 10000) : TTMEM_OK;
    if (result == TTMEM_OK) {
        result = ttmem_query_device(table, chip, &device);
    }
    if (result == TTMEM_OK) {
        printf("used=%" PRIu64 " buffers=%" PRIu64 " exact=%" PRIu64 "\n", device.dram.used, device.dram.buffers,
               device.exact);
    }
    return result;
}

/* As ttmem.hpp and the Python package do by themselves: if a newer ttmem is there, that is asked. */
static void ask(struct ttmem_table *table, int64_t chip, int now) {
    int result = query(table, chip, now);
    if (result != TTMEM_OK) {
        char why[sizeof table->error];
        memcpy(why, table->error, sizeof why);
        if ((result == TTMEM_STALE || result == TTMEM_ENDED) && ttmem_reopen(table) == TTMEM_OK &&
            ttmem_freshness(table) == TTMEM_OK) {
            result = query(table, chip, now);
        } else {
            memcpy(table->error, why, sizeof why);
        }
    }
    if (result != TTMEM_OK) {
        failed(table, result);
    }
}

static void process(struct ttmem_table *table) {
    struct ttmem_process found;
    const int result = ttmem_query_process(table, &found);
    if (result == TTMEM_OK || result == TTMEM_ENDED) {
        printf("state=%" PRIu64 " exact=%" PRIu64 " %s\n", found.state, found.exact, found.command);
    } else {
        failed(table, result);
    }
}

int main(void) {
    struct ttmem_table table;
    memset(&table, 0, sizeof table);
    char line[1024], word[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char directory[512];
        long number = 0;
        const int words = sscanf(line, "%15s %ld %511s", word, &number, directory);
        if (words == 3 && strcmp(word, "open") == 0) {
            ttmem_close(&table);
            const int result = ttmem_open(&table, number, directory);
            if (result == TTMEM_OK) {
                puts("ok");
            } else {
                failed(&table, result);
            }
        } else if (table.words == NULL) {
            puts("error nothing is open");
        } else if (strcmp(word, "process") == 0) {
            process(&table);
        } else {
            ask(&table, number, strcmp(word, "now") == 0);
        }
        fflush(stdout);
    }
    ttmem_close(&table);
    return 0;
}
