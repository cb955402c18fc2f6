// Loads: many allocations and frees, with exact counts.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "session.hpp"

namespace standin {

/// splitmix64: the same numbers everywhere, for ever.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t bound) { return next() % bound; }

private:
    std::uint64_t state_;
};

struct Counts {
    std::uint64_t allocations = 0;
    /// The same by buffer type, and the sum of their sizes.
    std::array<std::uint64_t, tt::tt_metal::kBufferTypes> of_type{};
    std::array<std::uint64_t, tt::tt_metal::kBufferTypes> bytes_of_type{};
    std::uint64_t frees = 0;
    std::uint64_t failed = 0;
    std::uint64_t kept = 0;
    double seconds = 0;

    void allocated(const Buffer& buffer);
    void add(const Counts& other);
};

/// `pairs` allocations and frees on each of `threads` threads, over all open devices; `keep`
/// further buffers per thread stay alive. `only`: small ones of that type. With `until` no more once
/// that has returned.
Counts churn(
    Session& session,
    unsigned threads,
    std::uint64_t pairs,
    std::uint64_t seed,
    std::uint64_t keep,
    std::optional<BufferType> only,
    const std::function<void()>& until = {});

/// `count` buffers alive at once, then freed (`hold`: kept instead).
Counts storm(Session& session, std::uint64_t count, bool hold);

/// Allocations and frees in turn, `per_second` events a second, for `seconds`.
Counts paced(Session& session, double per_second, double seconds);

}  // namespace standin
