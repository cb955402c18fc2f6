/*
 * ttmem.h - what a process holds of the memory of its Tenstorrent devices, as ttmem counts it.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A reader of ttmem's shared table (docs/shared-table.md) in one header: C11 or C++, Linux, no
 * library. docs/c.md explains it; ttmem.hpp is the same for C++.
 *
 *     struct ttmem_table table;
 *     if (ttmem_open(&table, 0, NULL) != TTMEM_OK) { fprintf(stderr, "%s\n", table.error); ... }
 *     struct ttmem_device chip;
 *     if (ttmem_query_device(&table, 0, &chip) == TTMEM_OK) printf("%" PRIu64 "\n", chip.dram.used);
 *     ttmem_close(&table);
 *
 * Rules
 * - A number that is not known is TTMEM_UNKNOWN, never 0. Sizes are bytes, times CLOCK_MONOTONIC ns.
 * - A call returns TTMEM_OK or why not; `error` then says what failed, on what, and what to do.
 * - One thread at a time uses a handle: give each thread its own. Reading through a counter
 *   (ttmem_counter) is the exception: any thread may.
 * - Nothing is trusted: the file has to belong to root or to the caller, and its parts to fit.
 */
#ifndef TTMEM_H
#define TTMEM_H

/* With -std=c11 the system's headers hide what this one needs, unless they are told. Not so with
 * -std=gnu11 or none: what is told there hides what the caller has by default, such as M_PI. */
#if defined(__STRICT_ANSI__) && !defined(_GNU_SOURCE) && !defined(_POSIX_C_SOURCE) && !defined(_DEFAULT_SOURCE)
#define _POSIX_C_SOURCE 200809L /* NOLINT */
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(O_NOFOLLOW) || !defined(CLOCK_MONOTONIC) || !defined(MSG_NOSIGNAL)
#error "include ttmem.h before other headers, or compile with -D_GNU_SOURCE or -std=gnu11"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the table of ttmem is little-endian, and so must be its readers"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A number that is not known. */
#define TTMEM_UNKNOWN UINT64_MAX
/* What stands in a user namespace for every user who has no number in it. */
#define TTMEM_OVERFLOW_UID_ 65534
/* "TTMEMTAB", and the version of the layout that this header reads. */
#define TTMEM_MAGIC UINT64_C(0x4241544d454d5454)
#define TTMEM_VERSION 1

/* Offsets in the header of the file, bytes. */
#define TTMEM_HEADER_MAGIC 0
#define TTMEM_HEADER_VERSION 8
#define TTMEM_HEADER_FILE_BYTES 16
#define TTMEM_HEADER_CHIPS_OFFSET 24
#define TTMEM_HEADER_CHIP_BYTES 32
#define TTMEM_HEADER_CHIP_SLOTS 40
#define TTMEM_HEADER_POOLS_OFFSET 48
#define TTMEM_HEADER_POOL_BYTES 56
#define TTMEM_HEADER_PID 64
#define TTMEM_HEADER_START_TICKS 72
#define TTMEM_HEADER_NAMESPACE_PID 80
#define TTMEM_HEADER_AGENT_PID 88
#define TTMEM_HEADER_AGENT_START_TICKS 96
#define TTMEM_HEADER_ATTACHED_NS 104
#define TTMEM_HEADER_STALE_AFTER_NS 112
#define TTMEM_HEADER_SEQUENCE 128
#define TTMEM_HEADER_HEARTBEAT_NS 136
#define TTMEM_HEADER_TIME_NS 144
#define TTMEM_HEADER_STATE 152
#define TTMEM_HEADER_EXACT 160
#define TTMEM_HEADER_LOST_RING_FULL 168
#define TTMEM_HEADER_LOST_READ_FAULT 176
#define TTMEM_HEADER_ANOMALIES 184
#define TTMEM_HEADER_CHIPS 192
#define TTMEM_HEADER_CHIPS_LEFT_OUT 200
#define TTMEM_HEADER_FAILURES 208
#define TTMEM_HEADER_RESYNCS 216
#define TTMEM_HEADER_COMMAND 256
#define TTMEM_HEADER_LIBRARY 768
#define TTMEM_HEADER_BUILD_ID 1280
#define TTMEM_HEADER_INEXACT_BECAUSE 1344
#define TTMEM_HEADER_LAST_BYTE 1856

/* Offsets in the block of a chip, bytes. */
#define TTMEM_CHIP_SEQUENCE 0
#define TTMEM_CHIP_CHIP 8
#define TTMEM_CHIP_CIRCULAR_CORE_BYTES 16
#define TTMEM_CHIP_CIRCULAR_PEAK_CORE_BYTES 24
#define TTMEM_CHIP_CORE_CAPACITY_BYTES 32
#define TTMEM_CHIP_HEADROOM_STATE 40
#define TTMEM_CHIP_HEADROOM_BYTES 48
#define TTMEM_CHIP_CIRCULAR_PROGRAMS 56
#define TTMEM_CHIP_CIRCULAR_BUFFERS 64
#define TTMEM_CHIP_LAST_BYTE 72

/* Offsets in the block of a pool, bytes; what ttmem_counter() is asked for. */
#define TTMEM_POOL_BUFFERS 0
#define TTMEM_POOL_LOGICAL_BYTES 8
#define TTMEM_POOL_USED_BYTES 16
#define TTMEM_POOL_PEAK_USED_BYTES 24
#define TTMEM_POOL_CAPACITY_BYTES 32
#define TTMEM_POOL_ALLOCATIONS 40
#define TTMEM_POOL_FREES 48
#define TTMEM_POOL_PRE_ATTACH_FREES 56
#define TTMEM_POOL_BANK_BYTES 64
#define TTMEM_POOL_BANKS 72
#define TTMEM_POOL_PRESENT 80
#define TTMEM_POOL_LAST_BYTE 88

/* tt-metal's buffer types, in the order of the pools. */
enum ttmem_type {
    TTMEM_DRAM = 0,
    TTMEM_L1 = 1,
    TTMEM_SYSTEM_MEMORY = 2,
    TTMEM_L1_SMALL = 3,
    TTMEM_TRACE = 4
};
#define TTMEM_TYPES 5

/* What has become of the watched process. */
enum ttmem_state {
    TTMEM_STARTING = 0,  /* its older buffers are still being read: the totals are not complete */
    TTMEM_RUNNING = 1,   /* it is watched */
    TTMEM_EXITED = 2,    /* it has ended; the numbers are its last */
    TTMEM_REPLACED = 3,  /* it runs another program; the numbers are the last of the watched one */
    TTMEM_UNWATCHED = 4  /* ttmem has ended; the process may run on */
};

/* Values of `headroom_state`. */
enum ttmem_headroom {
    TTMEM_HEADROOM_UNKNOWN = 0,
    TTMEM_HEADROOM_OK = 1,
    TTMEM_HEADROOM_LOW = 2,
    TTMEM_HEADROOM_CLASH = 3
};

/* What a call returns. */
enum ttmem_result {
    TTMEM_OK = 0,
    TTMEM_NOT_WATCHED = 1, /* there is no table of the process */
    TTMEM_DENIED = 2,      /* there is one, and the caller may not read it (or not connect) */
    TTMEM_BROKEN = 3,      /* it is no table, or a broken one, or of another version */
    TTMEM_TORN = 4,        /* a write was begun and not finished within a second */
    TTMEM_STALE = 5,       /* ttmem was killed or is stopped; what was asked is filled in, but old */
    TTMEM_ENDED = 6,       /* the process or ttmem has ended; filled in with the last numbers */
    TTMEM_NO_DEVICE = 7,   /* the process has not used that chip yet */
    TTMEM_NO_ANSWER = 8,   /* ttmem_sync(): no answer from the socket in time, or a refusal */
    TTMEM_FAILED = 9       /* a call of the system failed */
};

/* The memory of one buffer type on one chip. All but `present` may be TTMEM_UNKNOWN. */
struct ttmem_pool {
    uint64_t present;          /* 1: the chip has this pool; 0: it has not, and the rest is 0 */
    uint64_t buffers;          /* live buffers */
    uint64_t logical_bytes;    /* sum of their Buffer::size() */
    uint64_t used;             /* bytes that they take of the pool: of each bank x banks */
    uint64_t peak_used;        /* highest `used` since the attach, bytes */
    uint64_t capacity;         /* bytes of a bank x banks */
    uint64_t allocations;      /* seen since the attach */
    uint64_t frees;            /* seen since the attach, of buffers whose allocation was seen */
    uint64_t pre_attach_frees; /* seen since the attach, of buffers from before it */
    uint64_t bank_bytes;       /* what the live buffers take of each bank, bytes */
    uint64_t banks;            /* banks of the pool */
};

/* One chip; all numbers but `exact` are of one instant. */
struct ttmem_device {
    int64_t chip;                       /* tt-metal's id */
    uint64_t exact;                     /* 1: ttmem vouches for the totals; 0: see ttmem_query_process() */
    struct ttmem_pool dram;
    struct ttmem_pool l1;
    struct ttmem_pool system_memory;
    struct ttmem_pool l1_small;
    struct ttmem_pool trace;
    uint64_t circular_core_bytes;       /* of all programs, the most that circular buffers take of a core */
    uint64_t circular_peak_core_bytes;  /* highest of that */
    uint64_t core_capacity_bytes;       /* what a core's L1 has for buffers */
    uint64_t headroom_state;            /* enum ttmem_headroom */
    int64_t headroom_bytes;             /* highest circular buffer to lowest tensor; nothing if unknown */
    uint64_t circular_programs;         /* programs seen that keep circular buffers on this chip */
    uint64_t circular_buffers;          /* their circular and dataflow buffers with memory of their own */
};

/* What the header says of the process and of the numbers; of one instant, but for the heartbeat. */
struct ttmem_process {
    uint64_t pid;               /* as ttmem sees it */
    uint64_t namespace_pid;     /* in its own pid namespace; TTMEM_UNKNOWN if that is the same one */
    uint64_t agent_pid;         /* the ttmem that writes */
    uint64_t attached_ns;       /* when the file was made */
    uint64_t heartbeat_ns;      /* when ttmem last wrote */
    uint64_t time_ns;           /* every event up to this time is in the numbers, or counted as lost */
    uint64_t state;             /* enum ttmem_state */
    uint64_t exact;             /* 1: every total is known to equal the allocator's own; 0: not */
    uint64_t lost_ring_full;    /* records refused because the ring buffer was full */
    uint64_t lost_read_fault;   /* records not made because memory could not be read */
    uint64_t anomalies;         /* events that disagreed with what was known */
    uint64_t failures;          /* allocations that failed for want of memory */
    uint64_t resyncs;           /* readings of the process's memory after the first */
    uint64_t chips;             /* chips that it has used */
    uint64_t chips_left_out;    /* chips that the file has no room for */
    char command[512];          /* its command line */
    char library[512];          /* its tt-metal library */
    char build_id[64];          /* the library's build id, hexadecimal */
    char inexact_because[512];  /* why the numbers are not exact; empty if they are */
};

/* An open table. Only `error` and `path` are for callers to read. */
struct ttmem_table {
    const uint64_t *words; /* the file; NULL if none is open */
    size_t bytes;
    uint64_t chips_offset, chip_bytes, chip_slots, pools_offset, pool_bytes;
    uint64_t asked_pid;   /* as the caller said it, 0 resolved */
    uint64_t start_ticks; /* when the process was started, clock ticks since boot */
    uint64_t device, inode; /* which file the open table is */
    char directory[256];  /* as the caller said it; empty: the usual ones */
    char place[256];      /* the directory that the open table lies in */
    char path[320];       /* the open table */
    char error[768];      /* why the last call failed; empty if none has */
};

/* Takes a word of the table. */
static inline uint64_t ttmem_load(const uint64_t *counter) {
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* The word at an offset of the open table. Internal. */
static inline uint64_t ttmem_at_(const struct ttmem_table *table, uint64_t offset) {
    return ttmem_load(table->words + offset / 8);
}

/* Now, ns. The coarse clock is cheap and at most some 10 ms behind. Internal. */
static inline uint64_t ttmem_now_(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

#if defined(__GNUC__) || defined(__clang__)
#define TTMEM_SLOW_ __attribute__((unused, noinline, cold))
#define TTMEM_PRINTF_ __attribute__((unused, noinline, cold, format(printf, 3, 4)))
#else
#define TTMEM_SLOW_
#define TTMEM_PRINTF_
#endif

/* Says why. Internal. */
TTMEM_PRINTF_ static int ttmem_fail_(struct ttmem_table *table, int result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(table->error, sizeof table->error, format, arguments);
    va_end(arguments);
    return result;
}

/* Field 22 of /proc/PID/stat: when that process was started; TTMEM_UNKNOWN if it is not to be
 * seen. `pid` is one of the caller's pid namespace. Internal. */
TTMEM_SLOW_ static uint64_t ttmem_start_ticks_(uint64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return TTMEM_UNKNOWN;
    }
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) {
        return TTMEM_UNKNOWN;
    }
    text[length] = 0;
    /* The second field is a name in parentheses, and may hold any characters. */
    const char *rest = strrchr(text, ')');
    for (int field = 2; rest != NULL && field < 22; ++field) {
        rest = strchr(rest + 1, ' ');
    }
    return rest == NULL ? TTMEM_UNKNOWN : (uint64_t)strtoull(rest + 1, NULL, 10);
}

/* Whether strides and places in the header fit a file of that size. Internal. */
static inline int ttmem_fits_(const struct ttmem_table *table, uint64_t size) {
    const uint64_t most = UINT64_C(64) << 20;
    if (table->chips_offset > most || table->chip_bytes > most || table->pools_offset > most ||
        table->pool_bytes > most || table->chip_slots < 1 || table->chip_slots > 8192) {
        return 0;
    }
    if ((table->chips_offset | table->chip_bytes | table->pools_offset | table->pool_bytes) % 8 != 0) {
        return 0;
    }
    return table->chips_offset >= TTMEM_HEADER_LAST_BYTE && table->pools_offset >= TTMEM_CHIP_LAST_BYTE &&
           table->pool_bytes >= TTMEM_POOL_LAST_BYTE &&
           table->pools_offset + table->pool_bytes * TTMEM_TYPES <= table->chip_bytes &&
           table->chips_offset + table->chip_bytes * table->chip_slots <= size;
}

/* Lets go of the table. May be called twice. Counters are no longer to be read after it. */
TTMEM_SLOW_ static void ttmem_close(struct ttmem_table *table) {
    if (table->words != NULL) {
        union {
            const uint64_t *words;
            void *address;
        } mapping;
        mapping.words = table->words;
        munmap(mapping.address, table->bytes);
        table->words = NULL;
    }
}

/* Checks what was mapped. Internal. */
TTMEM_SLOW_ static int ttmem_check_(struct ttmem_table *table) {
    const uint64_t size = table->bytes;
    if (ttmem_at_(table, TTMEM_HEADER_MAGIC) != TTMEM_MAGIC) {
        return ttmem_fail_(table, TTMEM_BROKEN, "%s is no table of ttmem: it does not begin with TTMEMTAB",
                           table->path);
    }
    const uint64_t version = ttmem_at_(table, TTMEM_HEADER_VERSION);
    if (version != TTMEM_VERSION) {
        return ttmem_fail_(table, TTMEM_BROKEN,
                           "%s has version %" PRIu64 " and this ttmem.h reads %d: use the ttmem.h of the ttmem that runs",
                           table->path, version, TTMEM_VERSION);
    }
    const uint64_t wanted = ttmem_at_(table, TTMEM_HEADER_FILE_BYTES);
    if (wanted > size) {
        return ttmem_fail_(table, TTMEM_BROKEN,
                           "%s is no table of ttmem: it has %" PRIu64 " bytes and should have %" PRIu64, table->path,
                           size, wanted);
    }
    table->chips_offset = ttmem_at_(table, TTMEM_HEADER_CHIPS_OFFSET);
    table->chip_bytes = ttmem_at_(table, TTMEM_HEADER_CHIP_BYTES);
    table->chip_slots = ttmem_at_(table, TTMEM_HEADER_CHIP_SLOTS);
    table->pools_offset = ttmem_at_(table, TTMEM_HEADER_POOLS_OFFSET);
    table->pool_bytes = ttmem_at_(table, TTMEM_HEADER_POOL_BYTES);
    if (!ttmem_fits_(table, wanted)) {
        return ttmem_fail_(table, TTMEM_BROKEN, "%s is no table of ttmem: its parts do not fit into it", table->path);
    }
    return TTMEM_OK;
}

/* Maps a file that is open. Internal. */
TTMEM_SLOW_ static int ttmem_map_(struct ttmem_table *table, int file) {
    struct stat found;
    if (fstat(file, &found) != 0) {
        return ttmem_fail_(table, TTMEM_FAILED, "cannot look at %s: %s", table->path, strerror(errno));
    }
    if (!S_ISREG(found.st_mode)) {
        return ttmem_fail_(table, TTMEM_BROKEN, "%s is no table of ttmem: it is no file", table->path);
    }
    if (found.st_uid != 0 && found.st_uid != geteuid()) {
        return ttmem_fail_(table, TTMEM_BROKEN,
                           "%s is refused: it belongs to user %u%s, and only those of root and of the caller are read",
                           table->path, (unsigned)found.st_uid,
                           found.st_uid == TTMEM_OVERFLOW_UID_
                               ? " (in a user namespace, as in a rootless container: some user of the host, root "
                                 "or any other; have ttmem run as the user of the container, or read outside of it)"
                               : "");
    }
    if (found.st_size < TTMEM_HEADER_LAST_BYTE || found.st_size > (INT64_C(64) << 20)) {
        return ttmem_fail_(table, TTMEM_BROKEN, "%s is no table of ttmem: it has %" PRId64 " bytes", table->path,
                           (int64_t)found.st_size);
    }
    void *const address = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) { /* NOLINT */
        return ttmem_fail_(table, TTMEM_FAILED, "cannot map %s: %s", table->path, strerror(errno));
    }
    table->words = (const uint64_t *)address;
    table->bytes = (size_t)found.st_size;
    table->device = (uint64_t)found.st_dev;
    table->inode = (uint64_t)found.st_ino;
    const int result = ttmem_check_(table);
    if (result != TTMEM_OK) {
        ttmem_close(table);
    }
    return result;
}

/* Opens `table->path`. Internal. */
TTMEM_SLOW_ static int ttmem_open_path_(struct ttmem_table *table) {
    const int file = open(table->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        const int why = errno;
        if (why == ENOENT || why == ENOTDIR) {
            return TTMEM_NOT_WATCHED;
        }
        if (why == EACCES || why == EPERM) {
            return ttmem_fail_(table, TTMEM_DENIED,
                               "may not read %s: that may root, the user of process %" PRIu64
                               ", and the members of ttmem's --group",
                               table->path, table->asked_pid);
        }
        return ttmem_fail_(table, TTMEM_BROKEN, "cannot open %s: %s", table->path, strerror(why));
    }
    const int result = ttmem_map_(table, file);
    close(file);
    return result;
}

/* Whether the open table is of the process that was asked for. Internal. */
static inline int ttmem_is_asked_(const struct ttmem_table *table, uint64_t pid_word) {
    return ttmem_at_(table, pid_word) == table->asked_pid &&
           (table->start_ticks == TTMEM_UNKNOWN ||
            ttmem_at_(table, TTMEM_HEADER_START_TICKS) == table->start_ticks);
}

/* Opens the process's table in `table->place`: by its number, or, as in a container, by the number
 * that it has there and the time of its start. Internal. */
TTMEM_SLOW_ static int ttmem_open_in_(struct ttmem_table *table) {
    snprintf(table->path, sizeof table->path, "%s/%" PRIu64 ".table", table->place, table->asked_pid);
    int first = ttmem_open_path_(table);
    if (first == TTMEM_OK) {
        if (ttmem_is_asked_(table, TTMEM_HEADER_PID)) {
            return TTMEM_OK;
        }
        ttmem_close(table);
        first = TTMEM_NOT_WATCHED;
    }
    if (table->start_ticks == TTMEM_UNKNOWN || first == TTMEM_BROKEN) {
        return first;
    }
    const struct ttmem_table refused = *table;
    DIR *const directory = opendir(table->place);
    if (directory == NULL) {
        return first;
    }
    int result = TTMEM_NOT_WATCHED;
    for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        const size_t length = strlen(entry->d_name);
        if (length < 7 || length > 32 || strcmp(entry->d_name + length - 6, ".table") != 0) {
            continue;
        }
        snprintf(table->path, sizeof table->path, "%s/%.32s", table->place, entry->d_name);
        if (ttmem_open_path_(table) != TTMEM_OK) {
            continue;
        }
        if (ttmem_is_asked_(table, TTMEM_HEADER_NAMESPACE_PID)) {
            result = TTMEM_OK;
            break;
        }
        ttmem_close(table);
    }
    closedir(directory);
    if (result != TTMEM_OK) {
        *table = refused;
        return first;
    }
    return TTMEM_OK;
}

/* Opens the table in the first place that has it. Internal. */
TTMEM_SLOW_ static int ttmem_find_(struct ttmem_table *table) {
    const char *const variable = getenv("TTMEM_TABLE_DIR");
    const char *const runtime = getenv("XDG_RUNTIME_DIR");
    const char *places[2] = {"/run/ttmem", NULL};
    char of_user[256];
    if (table->directory[0] != 0) {
        places[0] = table->directory;
    } else if (variable != NULL && variable[0] != 0) {
        places[0] = variable;
    } else if (runtime != NULL && runtime[0] != 0) {
        const int length = snprintf(of_user, sizeof of_user, "%s/ttmem", runtime);
        places[1] = length > 0 && (size_t)length < sizeof of_user ? of_user : NULL;
    }
    int refusal = TTMEM_NOT_WATCHED;
    for (int at = 0; at < 2 && places[at] != NULL; ++at) {
        const int length = snprintf(table->place, sizeof table->place, "%s", places[at]);
        if (length < 0 || (size_t)length >= sizeof table->place) {
            return ttmem_fail_(table, TTMEM_FAILED, "the path of the directory of tables is too long: %.64s...",
                               places[at]);
        }
        const int result = ttmem_open_in_(table);
        if (result == TTMEM_OK) {
            table->error[0] = 0;
            return TTMEM_OK;
        }
        refusal = result == TTMEM_NOT_WATCHED ? refusal : result;
        if (refusal != TTMEM_NOT_WATCHED) {
            return refusal;
        }
    }
    return ttmem_fail_(table, TTMEM_NOT_WATCHED,
                       "no table of process %" PRIu64 " in %s%s%s: start `sudo ttmem attach --headless --pid %" PRIu64
                       "` or `sudo ttmem serve`",
                       table->asked_pid, places[0], places[1] == NULL ? "" : " or ",
                       places[1] == NULL ? "" : places[1], table->asked_pid);
}

/* Opens the table of a process: `pid` as the caller sees it, or 0 for the caller itself; also in a
 * container, where ttmem, outside, knows it by another number. `directory` is where the tables are,
 * or NULL: then $TTMEM_TABLE_DIR if it is set, else /run/ttmem, then $XDG_RUNTIME_DIR/ttmem. */
TTMEM_SLOW_ static int ttmem_open(struct ttmem_table *table, int64_t pid, const char *directory) {
    memset(table, 0, sizeof *table);
    if (pid < 0) {
        return ttmem_fail_(table, TTMEM_FAILED, "%" PRId64 " is no process id: give one, or 0 for this process", pid);
    }
    table->asked_pid = pid == 0 ? (uint64_t)getpid() : (uint64_t)pid;
    table->start_ticks = ttmem_start_ticks_(table->asked_pid);
    if (directory != NULL) {
        if (strlen(directory) >= sizeof table->directory) {
            return ttmem_fail_(table, TTMEM_FAILED, "the path of the directory of tables is too long: %.64s...",
                               directory);
        }
        memcpy(table->directory, directory, strlen(directory) + 1);
    }
    return ttmem_find_(table);
}

/* Opens the table anew, of the same process: after TTMEM_STALE or TTMEM_ENDED, when a new ttmem may
 * be there. If that fails the older one stays open. Counters have to be fetched again. */
TTMEM_SLOW_ static int ttmem_reopen(struct ttmem_table *table) {
    struct ttmem_table fresh = *table;
    fresh.words = NULL;
    fresh.error[0] = 0;
    if (fresh.start_ticks == TTMEM_UNKNOWN && table->words != NULL) {
        fresh.start_ticks = ttmem_at_(table, TTMEM_HEADER_START_TICKS);
    }
    const int result = ttmem_find_(&fresh);
    if (result != TTMEM_OK) {
        memcpy(table->error, fresh.error, sizeof table->error);
        return result;
    }
    ttmem_close(table);
    *table = fresh;
    return TTMEM_OK;
}

/* How many chips the process has used; they are in the places 0, 1, ... of the table and keep them. */
static inline uint64_t ttmem_chips(const struct ttmem_table *table) {
    const uint64_t chips = ttmem_at_(table, TTMEM_HEADER_CHIPS);
    return chips < table->chip_slots ? chips : table->chip_slots;
}

/* tt-metal's id of the chip in that place, which has to be less than ttmem_chips(). */
static inline int64_t ttmem_chip_at(const struct ttmem_table *table, uint64_t place) {
    return (int64_t)ttmem_at_(table, table->chips_offset + place * table->chip_bytes + TTMEM_CHIP_CHIP);
}

/* Offset of the block of that chip; 0 if the process has not used it. Internal. */
static inline uint64_t ttmem_block_(const struct ttmem_table *table, int64_t chip) {
    const uint64_t chips = ttmem_chips(table);
    /* Most often a chip is in the place of its number. */
    if (chip >= 0 && (uint64_t)chip < chips && ttmem_chip_at(table, (uint64_t)chip) == chip) {
        return table->chips_offset + (uint64_t)chip * table->chip_bytes;
    }
    for (uint64_t place = 0; place < chips; ++place) {
        if (ttmem_chip_at(table, place) == chip) {
            return table->chips_offset + place * table->chip_bytes;
        }
    }
    return 0;
}

/* Says that the chip is not there. Internal. */
TTMEM_SLOW_ static int ttmem_no_device_(struct ttmem_table *table, int64_t chip) {
    return ttmem_fail_(table, TTMEM_NO_DEVICE,
                       "process %" PRIu64 " has not used chip %" PRId64 ": it has used %" PRIu64
                       " chips so far; open the device first",
                       table->asked_pid, chip, ttmem_chips(table));
}

/* Where one figure (TTMEM_POOL_...) of one pool is, to be read by ttmem_load() as often as one likes,
 * at a load from memory each; NULL if the process has not used that chip. Good until the table is
 * closed or opened anew. It does not tell whether it is stale: ttmem_freshness() does. */
static inline const uint64_t *ttmem_counter(struct ttmem_table *table, int64_t chip, enum ttmem_type type, unsigned figure) {
    const uint64_t block = ttmem_block_(table, chip);
    if (block == 0 || (unsigned)type >= TTMEM_TYPES || figure % 8 != 0 || figure >= TTMEM_POOL_LAST_BYTE) {
        ttmem_no_device_(table, chip);
        return NULL;
    }
    return table->words + (block + table->pools_offset + (unsigned)type * table->pool_bytes + figure) / 8;
}

/* Says what has become of the writer. Internal. */
TTMEM_SLOW_ static int ttmem_stopped_(struct ttmem_table *table) {
    const uint64_t state = ttmem_at_(table, TTMEM_HEADER_STATE);
    const uint64_t agent = ttmem_at_(table, TTMEM_HEADER_AGENT_PID);
    switch (state) {
    case TTMEM_EXITED:
        return ttmem_fail_(table, TTMEM_ENDED, "process %" PRIu64 " has ended: the numbers are its last",
                           table->asked_pid);
    case TTMEM_REPLACED:
        return ttmem_fail_(table, TTMEM_ENDED,
                           "process %" PRIu64 " runs another program: the numbers are the last of the one that was watched",
                           table->asked_pid);
    case TTMEM_STARTING:
    case TTMEM_RUNNING: {
        const uint64_t now = ttmem_now_(CLOCK_MONOTONIC);
        const uint64_t beat = ttmem_at_(table, TTMEM_HEADER_HEARTBEAT_NS);
        const uint64_t age = now > beat ? (now - beat) / UINT64_C(1000000000) : 0;
        return ttmem_fail_(table, TTMEM_STALE,
                           "the numbers of process %" PRIu64 " are old: ttmem (process %" PRIu64
                           ") was killed or is stopped, and has not written for %" PRIu64 " s; start it again",
                           table->asked_pid, agent, age);
    }
    default:
        return ttmem_fail_(table, TTMEM_ENDED,
                           "process %" PRIu64 " is not watched any more: ttmem (process %" PRIu64
                           ") has ended, the numbers are the last; start it again",
                           table->asked_pid, agent);
    }
}

/* TTMEM_OK if somebody writes the numbers; else TTMEM_STALE or TTMEM_ENDED. Some 3 ns. */
static inline int ttmem_freshness(struct ttmem_table *table) {
    const uint64_t beat = ttmem_at_(table, TTMEM_HEADER_HEARTBEAT_NS);
#ifdef CLOCK_MONOTONIC_COARSE
    const uint64_t now = ttmem_now_(CLOCK_MONOTONIC_COARSE);
#else
    const uint64_t now = ttmem_now_(CLOCK_MONOTONIC);
#endif
    /* The coarse clock may be a little behind the heartbeat. */
    const uint64_t ahead = UINT64_C(1000000000);
    if (ttmem_at_(table, TTMEM_HEADER_STATE) <= TTMEM_RUNNING && beat <= now + ahead &&
        now <= beat + ttmem_at_(table, TTMEM_HEADER_STALE_AFTER_NS)) {
        return TTMEM_OK;
    }
    return ttmem_stopped_(table);
}

/* Reads what one sequence word guards, again and again until no write came between. Internal. */
struct ttmem_patience_ {
    unsigned spins;
    uint64_t since;
};

/* Waits a little before the next attempt; 0 if it has been a second. Internal. */
TTMEM_SLOW_ static int ttmem_wait_(struct ttmem_patience_ *patience) {
    if (++patience->spins < 1000) {
        return 1;
    }
    const uint64_t now = ttmem_now_(CLOCK_MONOTONIC);
    if (patience->since == 0) {
        patience->since = now;
    } else if (now - patience->since > UINT64_C(1000000000)) {
        return 0;
    }
    sched_yield();
    return 1;
}

/* Says that it was left in the midst of a write. Internal. */
TTMEM_SLOW_ static int ttmem_torn_(struct ttmem_table *table) {
    return ttmem_fail_(table, TTMEM_TORN,
                       "%s was left in the midst of a write: ttmem (process %" PRIu64
                       ") was killed or is stopped; start it again",
                       table->path, ttmem_at_(table, TTMEM_HEADER_AGENT_PID));
}

/* One pool. Internal. */
static inline void ttmem_read_pool_(const uint64_t *from, struct ttmem_pool *pool) {
    pool->buffers = ttmem_load(from + TTMEM_POOL_BUFFERS / 8);
    pool->logical_bytes = ttmem_load(from + TTMEM_POOL_LOGICAL_BYTES / 8);
    pool->used = ttmem_load(from + TTMEM_POOL_USED_BYTES / 8);
    pool->peak_used = ttmem_load(from + TTMEM_POOL_PEAK_USED_BYTES / 8);
    pool->capacity = ttmem_load(from + TTMEM_POOL_CAPACITY_BYTES / 8);
    pool->allocations = ttmem_load(from + TTMEM_POOL_ALLOCATIONS / 8);
    pool->frees = ttmem_load(from + TTMEM_POOL_FREES / 8);
    pool->pre_attach_frees = ttmem_load(from + TTMEM_POOL_PRE_ATTACH_FREES / 8);
    pool->bank_bytes = ttmem_load(from + TTMEM_POOL_BANK_BYTES / 8);
    pool->banks = ttmem_load(from + TTMEM_POOL_BANKS / 8);
    pool->present = ttmem_load(from + TTMEM_POOL_PRESENT / 8);
}

/* All numbers of one chip at one instant. TTMEM_STALE and TTMEM_ENDED fill `device` in, too, if the
 * chip is there; after any other failure all of it is unknown. While allocations flow the numbers are some 5 ms behind,
 * more where the processor is busy: ttmem_sync() first makes them now. */
static inline int ttmem_query_device(struct ttmem_table *table, int64_t chip, struct ttmem_device *device) {
    const uint64_t block = ttmem_block_(table, chip);
    if (block == 0) {
        memset(device, 0xff, sizeof *device); /* all unknown */
        const int fresh = ttmem_freshness(table);
        return fresh == TTMEM_OK ? ttmem_no_device_(table, chip) : fresh;
    }
    const uint64_t *const words = table->words + block / 8;
    const uint64_t *const pools = words + table->pools_offset / 8;
    const uint64_t step = table->pool_bytes / 8;
    const uint64_t exact = __atomic_load_n(table->words + TTMEM_HEADER_EXACT / 8, __ATOMIC_ACQUIRE);
    struct ttmem_patience_ patience = {0, 0};
    for (;;) {
        const uint64_t before = __atomic_load_n(words + TTMEM_CHIP_SEQUENCE / 8, __ATOMIC_ACQUIRE);
        if (before % 2 == 0) {
            device->chip = (int64_t)ttmem_load(words + TTMEM_CHIP_CHIP / 8);
            ttmem_read_pool_(pools + TTMEM_DRAM * step, &device->dram);
            ttmem_read_pool_(pools + TTMEM_L1 * step, &device->l1);
            ttmem_read_pool_(pools + TTMEM_SYSTEM_MEMORY * step, &device->system_memory);
            ttmem_read_pool_(pools + TTMEM_L1_SMALL * step, &device->l1_small);
            ttmem_read_pool_(pools + TTMEM_TRACE * step, &device->trace);
            device->circular_core_bytes = ttmem_load(words + TTMEM_CHIP_CIRCULAR_CORE_BYTES / 8);
            device->circular_peak_core_bytes = ttmem_load(words + TTMEM_CHIP_CIRCULAR_PEAK_CORE_BYTES / 8);
            device->core_capacity_bytes = ttmem_load(words + TTMEM_CHIP_CORE_CAPACITY_BYTES / 8);
            device->headroom_state = ttmem_load(words + TTMEM_CHIP_HEADROOM_STATE / 8);
            device->headroom_bytes = (int64_t)ttmem_load(words + TTMEM_CHIP_HEADROOM_BYTES / 8);
            device->circular_programs = ttmem_load(words + TTMEM_CHIP_CIRCULAR_PROGRAMS / 8);
            device->circular_buffers = ttmem_load(words + TTMEM_CHIP_CIRCULAR_BUFFERS / 8);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (ttmem_load(words + TTMEM_CHIP_SEQUENCE / 8) == before) {
                break;
            }
        }
        if (!ttmem_wait_(&patience)) {
            memset(device, 0xff, sizeof *device);
            return ttmem_torn_(table);
        }
    }
    /* Before and after: what is read in between may be of any moment there. */
    device->exact = exact == 1 && ttmem_at_(table, TTMEM_HEADER_EXACT) == 1;
    return ttmem_freshness(table);
}

/* The pool of a buffer type; NULL if there is no such type. */
static inline const struct ttmem_pool *ttmem_pool_of(const struct ttmem_device *device, enum ttmem_type type) {
    switch (type) {
    case TTMEM_DRAM: return &device->dram;
    case TTMEM_L1: return &device->l1;
    case TTMEM_SYSTEM_MEMORY: return &device->system_memory;
    case TTMEM_L1_SMALL: return &device->l1_small;
    case TTMEM_TRACE: return &device->trace;
    }
    return NULL;
}

/* One text of the header, which is cut where it is too long. Internal. */
static inline void ttmem_text_(const struct ttmem_table *table, unsigned offset, char *text, size_t bytes) {
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        const uint64_t word = ttmem_at_(table, offset + at);
        memcpy(text + at, &word, 8);
    }
    text[bytes - 1] = 0;
}

/* What the header says. TTMEM_STALE and TTMEM_ENDED fill `process` in, too. */
TTMEM_SLOW_ static int ttmem_query_process(struct ttmem_table *table, struct ttmem_process *process) {
    const uint64_t *const sequence = table->words + TTMEM_HEADER_SEQUENCE / 8;
    struct ttmem_patience_ patience = {0, 0};
    for (;;) {
        const uint64_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);
        if (before % 2 == 0) {
            process->pid = ttmem_at_(table, TTMEM_HEADER_PID);
            process->namespace_pid = ttmem_at_(table, TTMEM_HEADER_NAMESPACE_PID);
            process->agent_pid = ttmem_at_(table, TTMEM_HEADER_AGENT_PID);
            process->attached_ns = ttmem_at_(table, TTMEM_HEADER_ATTACHED_NS);
            process->heartbeat_ns = ttmem_at_(table, TTMEM_HEADER_HEARTBEAT_NS);
            process->time_ns = ttmem_at_(table, TTMEM_HEADER_TIME_NS);
            process->state = ttmem_at_(table, TTMEM_HEADER_STATE);
            process->exact = ttmem_at_(table, TTMEM_HEADER_EXACT);
            process->lost_ring_full = ttmem_at_(table, TTMEM_HEADER_LOST_RING_FULL);
            process->lost_read_fault = ttmem_at_(table, TTMEM_HEADER_LOST_READ_FAULT);
            process->anomalies = ttmem_at_(table, TTMEM_HEADER_ANOMALIES);
            process->failures = ttmem_at_(table, TTMEM_HEADER_FAILURES);
            process->resyncs = ttmem_at_(table, TTMEM_HEADER_RESYNCS);
            process->chips = ttmem_chips(table);
            process->chips_left_out = ttmem_at_(table, TTMEM_HEADER_CHIPS_LEFT_OUT);
            ttmem_text_(table, TTMEM_HEADER_COMMAND, process->command, sizeof process->command);
            ttmem_text_(table, TTMEM_HEADER_LIBRARY, process->library, sizeof process->library);
            ttmem_text_(table, TTMEM_HEADER_BUILD_ID, process->build_id, sizeof process->build_id);
            ttmem_text_(table, TTMEM_HEADER_INEXACT_BECAUSE, process->inexact_because,
                        sizeof process->inexact_because);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (ttmem_load(sequence) == before) {
                return ttmem_freshness(table);
            }
        }
        if (!ttmem_wait_(&patience)) {
            memset(process, 0xff, sizeof *process);
            process->command[0] = process->library[0] = process->build_id[0] = process->inexact_because[0] = 0;
            return ttmem_torn_(table);
        }
    }
}

/* ms left until a deadline (CLOCK_MONOTONIC ns), rounded up, for poll(). Internal. */
static inline int ttmem_left_(uint64_t deadline) {
    const uint64_t now = ttmem_now_(CLOCK_MONOTONIC);
    const uint64_t left = now >= deadline ? 0 : (deadline - now + UINT64_C(999999)) / UINT64_C(1000000);
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

/* Connects to the socket beside the table; its descriptor, or -1 with `errno`. Internal. */
TTMEM_SLOW_ static int ttmem_connect_(struct ttmem_table *table, uint64_t deadline) {
    /* By the directory's descriptor: a socket's address has room for 107 bytes. */
    const int directory = open(table->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return -1;
    }
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%" PRIu64 ".sock", directory,
             ttmem_at_(table, TTMEM_HEADER_PID));
    struct stat found;
    int connection = -1;
    if (lstat(address.sun_path, &found) == 0) {
        if (!S_ISSOCK(found.st_mode) || (found.st_uid != 0 && found.st_uid != geteuid())) {
            errno = EPERM; /* a plant of somebody else */
        } else {
            connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        }
    }
    while (connection >= 0 && connect(connection, (const struct sockaddr *)&address, sizeof address) != 0) {
        /* EAGAIN: too many are waiting to be accepted. */
        const int why = errno;
        if (why != EINTR && (why != EAGAIN || ttmem_left_(deadline) == 0)) {
            close(connection);
            connection = -1;
            errno = why;
        } else {
            poll(NULL, 0, 1);
        }
    }
    const int why = errno;
    close(directory);
    errno = why;
    return connection;
}

/* Asks for a sync on a connection and takes the answer; `errno` if there is none. Internal. */
TTMEM_SLOW_ static int ttmem_ask_(int connection, uint64_t deadline, char *answer, size_t room) {
    static const char request[] = "{\"get\":\"sync\"}\n";
    if (send(connection, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof request - 1)) {
        return -1;
    }
    size_t length = 0;
    while (length + 1 < room) {
        struct pollfd wanted;
        wanted.fd = connection;
        wanted.events = POLLIN;
        wanted.revents = 0;
        const int ready = poll(&wanted, 1, ttmem_left_(deadline));
        if (ready == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        const ssize_t got = ready < 0 ? -1 : recv(connection, answer + length, room - 1 - length, MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (got <= 0) {
            errno = got == 0 ? ECONNRESET : errno;
            return -1;
        }
        length += (size_t)got;
        answer[length] = 0;
        if (strchr(answer, '\n') != NULL) {
            return 0;
        }
    }
    return 0;
}

/* TTMEM_OK if whoever answers at the socket writes the open table: another ttmem may be there by now,
 * and the table be that of one that was killed a moment ago. Internal. */
TTMEM_SLOW_ static int ttmem_same_writer_(struct ttmem_table *table) {
    const int fresh = ttmem_freshness(table);
    if (fresh != TTMEM_OK) {
        return fresh;
    }
    struct stat found;
    if (lstat(table->path, &found) == 0 && (uint64_t)found.st_dev == table->device &&
        (uint64_t)found.st_ino == table->inode) {
        return TTMEM_OK;
    }
    return ttmem_fail_(table, TTMEM_ENDED,
                       "process %" PRIu64 " is watched by another ttmem than process %" PRIu64
                       ", or not any more: open its table anew",
                       table->asked_pid, ttmem_at_(table, TTMEM_HEADER_AGENT_PID));
}

/* Has ttmem bring the table up to date: after TTMEM_OK it holds every event from before this call.
 * TTMEM_ENDED: another ttmem may be there, see ttmem_reopen(). At most `timeout_ms`; most often some
 * 0.07 ms. */
TTMEM_SLOW_ static int ttmem_sync(struct ttmem_table *table, int timeout_ms) {
    const int fresh = ttmem_freshness(table);
    if (fresh != TTMEM_OK) {
        return fresh;
    }
    const uint64_t pid = ttmem_at_(table, TTMEM_HEADER_PID);
    const uint64_t patience = (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * UINT64_C(1000000);
    const uint64_t deadline = ttmem_now_(CLOCK_MONOTONIC) + patience;
    const int connection = ttmem_connect_(table, deadline);
    if (connection < 0) {
        return ttmem_fail_(table, errno == EACCES || errno == EPERM ? TTMEM_DENIED : TTMEM_NO_ANSWER,
                           "cannot connect to %s/%" PRIu64 ".sock: %s; ttmem_query_device() needs no socket",
                           table->place, pid, strerror(errno));
    }
    char answer[1024];
    answer[0] = 0;
    const int taken = ttmem_ask_(connection, deadline, answer, sizeof answer);
    const int why = errno;
    close(connection);
    if (taken != 0) {
        return ttmem_fail_(table, TTMEM_NO_ANSWER, "no answer from %s/%" PRIu64 ".sock: %s", table->place, pid,
                           strerror(why));
    }
    if (strstr(answer, "\"ttmem.sync/1\"") == NULL) {
        answer[strcspn(answer, "\n")] = 0;
        return ttmem_fail_(table, strstr(answer, "\"not_allowed\"") == NULL ? TTMEM_NO_ANSWER : TTMEM_DENIED,
                           "%s/%" PRIu64 ".sock refuses: %.400s", table->place, pid, answer);
    }
    return ttmem_same_writer_(table);
}

/* What a result means, in short; `error` of the handle says more. */
TTMEM_SLOW_ static const char *ttmem_result_name(int result) {
    static const char *const names[] = {"ok",    "not watched", "denied",    "broken",    "torn",
                                        "stale", "ended",       "no device", "no answer", "failed"};
    return result >= 0 && result < (int)(sizeof names / sizeof names[0]) ? names[result] : "unknown result";
}

#undef TTMEM_SLOW_
#undef TTMEM_PRINTF_

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* TTMEM_H */
