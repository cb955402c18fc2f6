/* Prints what a process holds of each of its chips, again and again, until the process ends.
 *
 *     gcc -std=gnu11 -O2 -I include examples/monitor.c -o monitor
 *     ./monitor PID [MILLISECONDS [TIMES]]
 *
 * Reads only shared memory: nothing is asked of ttmem or of the process. */

#include "ttmem.h"

static void print_chip(const struct ttmem_device *device) {
    printf("chip %" PRId64, device->chip);
    const struct {
        const char *name;
        const struct ttmem_pool *pool;
    } shown[] = {{"DRAM", &device->dram}, {"L1", &device->l1}};
    for (size_t at = 0; at < sizeof shown / sizeof shown[0]; ++at) {
        if (shown[at].pool->used == TTMEM_UNKNOWN) {
            printf("  %s not known", shown[at].name);
        } else {
            printf("  %s %" PRIu64 " bytes in %" PRIu64 " buffers", shown[at].name, shown[at].pool->used,
                   shown[at].pool->buffers);
        }
    }
    puts(device->exact ? "  exact" : "  not exact");
}

static void wait_ms(long ms) {
    const struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs("usage: monitor PID [MILLISECONDS [TIMES]]\n", stderr);
        return 1;
    }
    const long interval = argc > 2 ? atol(argv[2]) : 1000;
    const long times = argc > 3 ? atol(argv[3]) : -1;
    struct ttmem_table table;
    if (ttmem_open(&table, atol(argv[1]), NULL) != TTMEM_OK) {
        fprintf(stderr, "monitor: %s\n", table.error);
        return 1;
    }
    int result = TTMEM_OK;
    for (long time = 0; time != times && result == TTMEM_OK; ++time) {
        if (time > 0) {
            wait_ms(interval);
        }
        const uint64_t chips = ttmem_chips(&table);
        for (uint64_t place = 0; place < chips && (result == TTMEM_OK || result == TTMEM_ENDED); ++place) {
            struct ttmem_device device;
            result = ttmem_query_device(&table, ttmem_chip_at(&table, place), &device);
            if (result == TTMEM_OK || result == TTMEM_ENDED) {
                print_chip(&device);
            }
        }
        fflush(stdout);
    }
    if (result != TTMEM_OK) {
        fprintf(stderr, "monitor: %s\n", table.error);
    }
    ttmem_close(&table);
    return result == TTMEM_OK || result == TTMEM_ENDED ? 0 : 1;
}
