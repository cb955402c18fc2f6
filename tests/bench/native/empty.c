// empty PID FILE OFFSET...: an eBPF program that does nothing, at those offsets of the file, in that process.
//
// The floor of any uprobe: two instructions, attached by the same kind of link as ttmem's, or by a perf event each where
// the kernel has no such link. It says how it is attached, and detaches when its standard input ends.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kMost = 16, kUprobeMulti = 48 };  // BPF_TRACE_UPROBE_MULTI, which older headers lack

// The part of `union bpf_attr` for BPF_LINK_CREATE with such a link, in all 64 bytes.
struct multi_link {
    uint32_t program, target, type, flags;
    uint64_t path, offsets, reference_counters, cookies;
    uint32_t count, multi_flags, pid, padding;
};

static long bpf(int command, void *attr, unsigned size) {
    return syscall(SYS_bpf, command, attr, size);
}

static int load(unsigned attach_type) {
    static const struct bpf_insn nothing[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_KPROBE;
    attr.expected_attach_type = attach_type;
    attr.insns = (uintptr_t)nothing;
    attr.insn_cnt = 2;
    attr.license = (uintptr_t) "GPL";
    return (int)bpf(BPF_PROG_LOAD, &attr, sizeof attr);
}

static int attach_multi(int pid, const char *file, const uint64_t *offsets, uint32_t count) {
    const int program = load(kUprobeMulti);
    struct multi_link link = {.program = (uint32_t)program, .type = kUprobeMulti, .path = (uintptr_t)file,
                              .offsets = (uintptr_t)offsets, .count = count, .pid = (uint32_t)pid};
    return program < 0 ? -1 : (int)bpf(BPF_LINK_CREATE, &link, sizeof link);
}

static unsigned uprobe_type(void) {
    unsigned type = 0;
    FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
    if (file == NULL || fscanf(file, "%u", &type) != 1) {
        perror("uprobes");
        exit(1);
    }
    fclose(file);
    return type;
}

static int attach_perf(int pid, const char *file, uint64_t offset) {
    const int program = load(0);
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = uprobe_type();
    attr.uprobe_path = (uintptr_t)file;
    attr.probe_offset = offset;
    const int event = (int)syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (program < 0 || event < 0 || ioctl(event, PERF_EVENT_IOC_SET_BPF, program) != 0) {
        return -1;
    }
    return ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
}

int main(int argc, char **argv) {
    uint64_t offsets[kMost];
    const uint32_t count = (uint32_t)(argc - 3);
    if (argc < 4 || count > kMost) {
        fputs("usage: empty PID FILE OFFSET...\n", stderr);
        return 2;
    }
    const int pid = atoi(argv[1]);
    for (uint32_t i = 0; i < count; i++) {
        offsets[i] = strtoull(argv[3 + i], NULL, 0);
    }
    const char *how = "uprobe_multi";
    if (attach_multi(pid, argv[2], offsets, count) < 0) {
        how = "perf events";
        for (uint32_t i = 0; i < count; i++) {
            if (attach_perf(pid, argv[2], offsets[i]) < 0) {
                fprintf(stderr, "cannot attach: %s\n", strerror(errno));
                return 1;
            }
        }
    }
    printf("attached by %s\n", how);
    fflush(stdout);
    char ignored[64];
    while (read(0, ignored, sizeof ignored) > 0) {
    }
    return 0;
}
