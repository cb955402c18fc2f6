// Value types that buffers, allocators and devices share. Names and namespaces are those of
// tt-metal, because they end up in the mangled names that ttmem looks for.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ttsl {
template <typename T, typename Tag>
class StrongType {
public:
    constexpr explicit StrongType(T value) : value_(value) {}
    constexpr const T& operator*() const { return value_; }

private:
    T value_;
};
}  // namespace ttsl

namespace tt::tt_metal {

using DeviceAddr = std::uint64_t;

struct SubDeviceIdTag {};
struct SubDeviceManagerIdTag {};
using SubDeviceId = ttsl::StrongType<std::uint8_t, SubDeviceIdTag>;
using SubDeviceManagerId = ttsl::StrongType<std::uint64_t, SubDeviceManagerIdTag>;

enum class BufferType : std::uint32_t { DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE };
inline constexpr std::size_t kBufferTypes = 5;

enum class TensorMemoryLayout { INTERLEAVED, SINGLE_BANK, HEIGHT_SHARDED, WIDTH_SHARDED, BLOCK_SHARDED, ND_SHARDED };

#ifdef TTMEM_STANDIN_OLD
inline constexpr unsigned kShardedLayouts = 3;
#else
inline constexpr unsigned kShardedLayouts = 4;
#endif

inline bool is_sharded(TensorMemoryLayout layout) {
    return static_cast<unsigned>(layout) - 2U < kShardedLayouts;
}

/// Which of a bank manager's free lists: 0 is the one that all banks share, then one for each bank.
struct AllocatorIDTag {};
using AllocatorID = ttsl::StrongType<std::uint32_t, AllocatorIDTag>;

/// 16 bytes, like tt::xy_pair.
struct CoreCoord {
    std::uint64_t x = 0;
    std::uint64_t y = 0;
    bool operator==(const CoreCoord&) const = default;
};

struct CoreHash {
    std::size_t operator()(const CoreCoord& core) const { return core.x * 31 + core.y; }
};
/// The address on each core.
using CoreAddresses = std::unordered_map<CoreCoord, DeviceAddr, CoreHash>;

}  // namespace tt::tt_metal

// Ranges of cores moved into the namespace in 0.64; their mangled names changed with it.
#ifndef TTMEM_STANDIN_INLINE
namespace tt::tt_metal {
#else
using tt::tt_metal::CoreCoord;
#endif

/// 32 bytes; both ends belong to the range.
struct CoreRange {
    CoreCoord start;
    CoreCoord end;
    bool intersects(const CoreRange& other) const;
};

class CoreRangeSet {
public:
    CoreRangeSet() = default;
    explicit CoreRangeSet(std::vector<CoreRange> ranges) : ranges_(std::move(ranges)) {}
    std::uint32_t num_cores() const;
    std::size_t size() const;
    const std::vector<CoreRange>& ranges() const;

private:
    std::vector<CoreRange> ranges_;
};

#ifndef TTMEM_STANDIN_INLINE
}  // namespace tt::tt_metal
#endif

namespace tt::tt_metal {

#ifdef TTMEM_STANDIN_INLINE
using ::CoreRange;
using ::CoreRangeSet;
#endif

/// A two-dimensional shard on each core of a grid.
struct ShardSpecBuffer {
    CoreRangeSet grid;
    std::array<std::uint32_t, 2> shape{};
    std::uint32_t orientation = 0;
    std::array<std::uint32_t, 2> page_shape{};
    std::array<std::uint32_t, 2> tensor_shape_in_pages{};
};

/// Shards of any shape dealt out round-robin over a list of cores.
struct BufferDistributionSpec {
    std::array<std::uint64_t, 9> shapes{};
    std::vector<CoreCoord> cores;
    std::array<std::uint64_t, 5> strides{};
    std::uint64_t shard_pages = 0;
    std::uint64_t num_shards = 0;

    std::size_t num_cores_with_data() const { return num_shards < cores.size() ? num_shards : cores.size(); }
    std::uint64_t max_pages_per_core() const {
        return cores.empty() ? 0 : (num_shards + cores.size() - 1) / cores.size() * shard_pages;
    }
};

struct BufferShardingArgs {
    TensorMemoryLayout layout = TensorMemoryLayout::INTERLEAVED;
    std::optional<ShardSpecBuffer> shard_spec;
    std::optional<BufferDistributionSpec> distribution_spec;
    bool per_core = false;
};

/// Out of line, so that the throwing path of a getter is one call, as in the real library.
[[noreturn]] void throw_error(const char* what);

namespace detail {
/// Bytes that `size` takes on the fullest bank when its pages are dealt out over `banks`.
std::uint64_t calculate_bank_size_spread(
    std::uint64_t size, std::uint64_t page_size, std::uint32_t banks, std::uint32_t alignment);
}  // namespace detail

}  // namespace tt::tt_metal
