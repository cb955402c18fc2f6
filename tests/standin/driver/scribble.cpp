#include "scribble.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "loads.hpp"
#include "session.hpp"

namespace standin {
namespace {

constexpr std::size_t kMostWords = 4096;

struct Range {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    bool has(std::uint64_t address) const { return address >= start && address < end; }
};

struct Ranges {
    Range heap;
    /// The library's image: what points there is a vtable.
    Range image;
};

/// From /proc/self/maps.
Ranges find_ranges() {
    Ranges found;
    std::FILE* maps = std::fopen("/proc/self/maps", "r");
    if (maps == nullptr) {
        throw ScriptError{"cannot read its mappings"};
    }
    char line[512];
    while (std::fgets(line, sizeof line, maps) != nullptr) {
        Range range;
        if (std::sscanf(line, "%" SCNx64 "-%" SCNx64, &range.start, &range.end) != 2) {
            continue;
        }
        if (std::strstr(line, "[heap]") != nullptr) {
            found.heap = range;
        } else if (std::strstr(line, "libtt_metal.so") != nullptr) {
            found.image.start = found.image.start == 0 ? range.start : found.image.start;
            found.image.end = range.end;
        }
    }
    std::fclose(maps);
    if (found.heap.end == 0 || found.image.end == 0) {
        throw ScriptError{"it has no heap, or no library"};
    }
    return found;
}

/// Two pages that can be touched by nobody, and one behind the end of its file.
std::array<std::uint64_t, 2> bad_pages() {
    constexpr std::size_t kSize = 2 * 4096;
    void* const closed = ::mmap(nullptr, kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int file = ::memfd_create("empty", 0);
    void* const past_end = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, file, 0);
    if (closed == MAP_FAILED || past_end == MAP_FAILED) {
        throw ScriptError{"cannot map bad pages"};
    }
    return {reinterpret_cast<std::uint64_t>(closed), reinterpret_cast<std::uint64_t>(past_end)};
}

struct Wrong {
    volatile std::uint64_t* word = nullptr;
    std::uint64_t right = 0;
};

class Scribbler {
public:
    Scribbler(std::uint64_t seed, std::uint64_t words) :
        random_(seed), ranges_(find_ranges()), bad_pages_(bad_pages()), words_(words) {}

    /// Makes one word wrong, and the one that has been so for longest right.
    void step() {
        Wrong& oldest = wrong_[next_];
        next_ = (next_ + 1) % words_;
        if (oldest.word != nullptr) {
            *oldest.word = oldest.right;
        }
        const std::uint64_t words = (ranges_.heap.end - ranges_.heap.start) / 8;
        auto* const word = reinterpret_cast<volatile std::uint64_t*>(ranges_.heap.start + random_.below(words) * 8);
        oldest = {};
        // An empty part of the heap leads nowhere.
        if (*word != 0 && !ranges_.image.has(*word)) {
            oldest = {word, *word};
            *word = nonsense(reinterpret_cast<std::uint64_t>(word), *word);
        }
    }

private:
    std::uint64_t nonsense(std::uint64_t address, std::uint64_t right) {
        const std::uint64_t heap = ranges_.heap.start + random_.below(ranges_.heap.end - ranges_.heap.start);
        switch (random_.below(10)) {
            case 0: return 0;
            case 1: return ~std::uint64_t{0};
            case 2: return random_.next();
            case 3: return std::uint64_t{1} << random_.below(64);
            case 4: return address;
            case 5: return heap & ~std::uint64_t{7};
            case 6: return heap;
            case 7: return bad_pages_[random_.below(bad_pages_.size())];
            case 8: return right ^ (std::uint64_t{1} << random_.below(64));
            default: return right + random_.below(64) * 8;
        }
    }

    Random random_;
    Ranges ranges_;
    std::array<std::uint64_t, 2> bad_pages_;
    std::size_t words_;
    std::array<Wrong, kMostWords> wrong_{};
    std::size_t next_ = 0;
};

}  // namespace

void scribble(std::uint64_t seed, std::uint64_t words, bool still) {
    if (words == 0 || words > kMostWords) {
        throw ScriptError{"1 to " + std::to_string(kMostWords) + " words"};
    }
    // Neither on the heap nor through anything that is.
    static Scribbler scribbler(seed, words);
    if (::write(STDOUT_FILENO, "ok\n", 3) != 3) {
        ::_exit(1);
    }
    for (std::uint64_t steps = 0; !still || steps < words; ++steps) {
        scribbler.step();
    }
    for (;;) {
        ::pause();
    }
}

}  // namespace standin
