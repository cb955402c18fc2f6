// Where the two functions that every tool probes begin, and whether anybody has put a probe there.
#pragma once

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace bench {

constexpr const char* kAllocate = "_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE";
constexpr const char* kFree = "_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE";

/// The start of a function; a probe may lie a little behind it.
class Site {
public:
    Site(void* library, const char* symbol) : code_(static_cast<const unsigned char*>(dlsym(library, symbol))) {
        if (code_ != nullptr) {
            std::memcpy(original_.data(), code_, original_.size());
        }
    }

    bool found() const { return code_ != nullptr; }
    bool probed() const { return std::memcmp(original_.data(), code_, original_.size()) != 0; }
    /// Of the code as it is now: 0xcc is a breakpoint, 0xe8 a call that the kernel has put in its place.
    unsigned opcode() const { return code_[0]; }

    /// Where the function is in the file, in bytes; 0 if that cannot be told.
    std::uint64_t file_offset() const {
        FILE* maps = std::fopen("/proc/self/maps", "r");
        char line[512];
        std::uint64_t offset = 0;
        const auto address = reinterpret_cast<std::uint64_t>(code_);
        while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
            unsigned long start = 0, end = 0, from = 0;
            if (std::sscanf(line, "%lx-%lx %*4s %lx", &start, &end, &from) == 3 && start <= address && address < end) {
                offset = address - start + from;
            }
        }
        if (maps != nullptr) {
            std::fclose(maps);
        }
        return offset;
    }

private:
    const unsigned char* code_;
    std::array<unsigned char, 32> original_{};
};

struct Sites {
    explicit Sites(void* library) : allocate(library, kAllocate), free(library, kFree) {}

    std::string json() const {
        return "{\"probed\":" + std::to_string(allocate.probed() + free.probed()) +
               ",\"opcode\":" + std::to_string(allocate.opcode()) +
               ",\"allocate\":" + std::to_string(allocate.file_offset()) +
               ",\"free\":" + std::to_string(free.file_offset()) + "}";
    }

    Site allocate, free;
};

}  // namespace bench
