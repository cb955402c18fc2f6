/* Reads a chip's numbers as fast as it can and checks that they belong together.
 *
 * torture PID DIRECTORY READS CHANGES: after at least so many reads and changes it says what it saw;
 * with READS 0 it goes on until it is killed. It says `begun` after the first. */

#include "ttmem.h"

static const char *torn_pool(const struct ttmem_pool *pool, const struct ttmem_pool *before) {
    if (!pool->present) {
        return NULL;
    }
    if (pool->used != pool->bank_bytes * pool->banks) {
        return "used is not bank_bytes of each bank";
    }
    if (pool->used > pool->peak_used || pool->used > pool->capacity) {
        return "used is more than its peak, or its capacity";
    }
    /* Nothing was there before the attach, and nothing was lost. */
    if (pool->allocations - pool->frees != pool->buffers) {
        return "allocations minus frees are not the buffers";
    }
    if (pool->allocations < before->allocations || pool->frees < before->frees ||
        pool->peak_used < before->peak_used) {
        return "a count went back";
    }
    return NULL;
}

static const char *torn(const struct ttmem_device *now, const struct ttmem_device *before) {
    for (int type = 0; type < TTMEM_TYPES; ++type) {
        const struct ttmem_pool *const pool = ttmem_pool_of(now, (enum ttmem_type)type);
        const char *const why = torn_pool(pool, ttmem_pool_of(before, (enum ttmem_type)type));
        if (why != NULL) {
            printf("torn type=%d buffers=%" PRIu64 " used=%" PRIu64 " allocations=%" PRIu64 " frees=%" PRIu64 "\n", type,
                   pool->buffers, pool->used, pool->allocations, pool->frees);
            return why;
        }
    }
    return NULL;
}

/* ns per load of one figure. */
static double counter_ns(struct ttmem_table *table) {
    const int loads = 10000000;
    const uint64_t *const used = ttmem_counter(table, 0, TTMEM_DRAM, TTMEM_POOL_USED_BYTES);
    if (used == NULL) {
        return 1e9;
    }
    volatile uint64_t sink = 0;
    const uint64_t start = ttmem_now_(CLOCK_MONOTONIC);
    for (int load = 0; load < loads; ++load) {
        sink = ttmem_load(used);
    }
    const uint64_t span = ttmem_now_(CLOCK_MONOTONIC) - start;
    return sink == 1 ? 1e9 : (double)span / loads;
}

int main(int argc, char **argv) {
    struct ttmem_table table;
    if (argc != 5 || ttmem_open(&table, atol(argv[1]), argv[2]) != TTMEM_OK) {
        printf("error %s\n", argc == 5 ? table.error : "usage: torture PID DIRECTORY READS CHANGES");
        return 1;
    }
    const uint64_t wanted = strtoull(argv[3], NULL, 10);
    const uint64_t changes_wanted = strtoull(argv[4], NULL, 10);
    struct ttmem_device before, now;
    memset(&before, 0, sizeof before);
    uint64_t changes = 0, reads = 0;
    const double counter = counter_ns(&table);
    const uint64_t start = ttmem_now_(CLOCK_MONOTONIC);
    for (; wanted == 0 || reads < wanted || changes < changes_wanted; ++reads) {
        const int result = ttmem_query_device(&table, 0, &now);
        const char *const why = result == TTMEM_OK ? torn(&now, &before) : table.error;
        if (why != NULL) {
            printf("error %s\n", why);
            return 1;
        }
        if (reads == 0) {
            puts("begun");
            fflush(stdout);
        }
        changes += now.dram.allocations != before.dram.allocations;
        before = now;
    }
    const uint64_t span = ttmem_now_(CLOCK_MONOTONIC) - start;
    struct ttmem_process process;
    if (ttmem_query_process(&table, &process) != TTMEM_OK) {
        printf("error %s\n", table.error);
        return 1;
    }
    printf("ok reads=%" PRIu64 " changes=%" PRIu64 " lost=%" PRIu64 " counter_ns=%.2f device_ns=%.1f\n", reads, changes,
           process.lost_ring_full + process.lost_read_fault, counter, (double)span / (double)reads);
    ttmem_close(&table);
    return 0;
}
