#include "types.hpp"

#ifndef TTMEM_STANDIN_INLINE
namespace tt::tt_metal {
#endif

bool CoreRange::intersects(const CoreRange& other) const {
    return end.x >= other.start.x && start.x <= other.end.x && end.y >= other.start.y && start.y <= other.end.y;
}

std::size_t CoreRangeSet::size() const { return ranges_.size(); }

const std::vector<CoreRange>& CoreRangeSet::ranges() const { return ranges_; }

std::uint32_t CoreRangeSet::num_cores() const {
    std::uint32_t count = 0;
    for (const CoreRange& range : ranges_) {
        count += static_cast<std::uint32_t>((range.end.x - range.start.x + 1) * (range.end.y - range.start.y + 1));
    }
    return count;
}

#ifndef TTMEM_STANDIN_INLINE
}  // namespace tt::tt_metal
#endif

namespace tt::tt_metal {

void throw_error(const char* what) { throw std::runtime_error(what); }

namespace detail {

std::uint64_t calculate_bank_size_spread(
    std::uint64_t size, std::uint64_t page_size, std::uint32_t banks, std::uint32_t alignment) {
    const std::uint64_t pages = page_size == 0 ? 0 : size / page_size;
    const std::uint64_t pages_per_bank = pages == 0 ? 0 : 1 + (pages - 1) / banks;
    const std::uint64_t aligned_page = (page_size + alignment - 1) / alignment * alignment;
    return pages_per_bank * aligned_page;
}

}  // namespace detail
}  // namespace tt::tt_metal
