// The allocator of one pool. The table of allocated blocks and the vectors of all blocks are built
// like those of the real FreeListOpt, because ttmem reads them from memory; the search is a plain
// first fit.
#pragma once

#include <map>

#include "types.hpp"

namespace tt::tt_metal::allocator {

class Algorithm {
public:
    Algorithm(DeviceAddr max_size, DeviceAddr offset, DeviceAddr min_allocation, DeviceAddr alignment) :
        max_size_(max_size), offset_(offset), min_allocation_(min_allocation), alignment_(alignment) {}
    virtual ~Algorithm() = default;
    virtual std::optional<DeviceAddr> allocate(DeviceAddr size, bool bottom_up, DeviceAddr address_limit) = 0;
    virtual void deallocate(DeviceAddr address) = 0;
    virtual void clear() = 0;
    DeviceAddr max_size() const { return max_size_; }

protected:
    DeviceAddr max_size_;
    DeviceAddr offset_;
    DeviceAddr min_allocation_;
    DeviceAddr alignment_;
    /// Bytes at the start of the bank that shrink_size() has given away.
    DeviceAddr shrunk_ = 0;
};

/// Like the real one, in bytes of each bank.
struct Statistics {
    DeviceAddr total = 0;
    DeviceAddr allocated = 0;
    DeviceAddr free = 0;
    DeviceAddr largest_free = 0;
};

class FreeListOpt final : public Algorithm {
public:
    FreeListOpt(DeviceAddr max_size, DeviceAddr offset, DeviceAddr min_allocation, DeviceAddr alignment);

    /// Address on the device, base included; nothing when no hole is large enough.
    std::optional<DeviceAddr> allocate(DeviceAddr size, bool bottom_up, DeviceAddr address_limit) override;
    /// Ignores an address that is not allocated, as the real one does.
    void deallocate(DeviceAddr address) override;
    void clear() override;
    std::optional<DeviceAddr> get_allocation_size(DeviceAddr address) const;
    bool is_address_in_alloc_table(DeviceAddr relative_address) const;
    std::size_t allocated_blocks() const;
    DeviceAddr allocated_bytes() const;
    DeviceAddr largest_hole() const;
    /// What the flags of all blocks add up to.
    Statistics get_statistics() const;
    /// Free blocks.
    std::size_t holes() const;
    DeviceAddr offset() const { return offset_; }
    DeviceAddr shrunk() const { return shrunk_; }
    /// Gives bytes at the start of the bank away, which must be free.
    void shrink_size(DeviceAddr size, bool bottom_up);
    void reset_size();

private:
    using Bucket = std::vector<std::pair<DeviceAddr, std::size_t>>;
    static constexpr std::size_t kBuckets = 512;
    static constexpr std::size_t bucket_of(DeviceAddr relative) {
        const auto low = static_cast<std::uint32_t>(relative);
        return (low ^ ((low >> 12) * 3)) & (kBuckets - 1);
    }
    std::size_t add_block(DeviceAddr address, DeviceAddr size, bool allocated);
    void remove_block(std::size_t index);
    void add_hole(DeviceAddr address, DeviceAddr size);

    DeviceAddr spacer_ = 0;
    std::vector<std::uint8_t> block_exists_;
    std::vector<DeviceAddr> block_size_;
    std::vector<DeviceAddr> block_address_;
    std::vector<std::uint8_t> block_is_allocated_;
    std::vector<std::size_t> unused_indices_;
    std::vector<Bucket> allocated_;
    /// Address of each free block → its index.
    std::map<DeviceAddr, std::size_t> holes_;
};

}  // namespace tt::tt_metal::allocator
