#include "free_list.hpp"

#include <algorithm>
#include <iterator>

namespace tt::tt_metal::allocator {

FreeListOpt::FreeListOpt(DeviceAddr max_size, DeviceAddr offset, DeviceAddr min_allocation, DeviceAddr alignment) :
    Algorithm(max_size, offset, min_allocation, alignment), allocated_(kBuckets) {
    holes_.emplace(0, max_size);
}

std::size_t FreeListOpt::take_index() {
    if (unused_indices_.empty()) {
        block_address_.push_back(0);
        block_size_.push_back(0);
        return block_size_.size() - 1;
    }
    const std::size_t index = unused_indices_.back();
    unused_indices_.pop_back();
    return index;
}

std::optional<DeviceAddr> FreeListOpt::allocate(DeviceAddr size, bool /*bottom_up*/, DeviceAddr /*address_limit*/) {
    const DeviceAddr wanted = (std::max(size, min_allocation_) + alignment_ - 1) / alignment_ * alignment_;
    const auto hole = std::find_if(holes_.begin(), holes_.end(), [&](const auto& h) { return h.second >= wanted; });
    if (hole == holes_.end()) {
        return std::nullopt;
    }
    const auto [address, length] = *hole;
    holes_.erase(hole);
    if (length > wanted) {
        holes_.emplace(address + wanted, length - wanted);
    }
    const std::size_t index = take_index();
    block_address_[index] = address;
    block_size_[index] = wanted;
    allocated_[bucket_of(address)].emplace_back(address, index);
    return address + offset_;
}

void FreeListOpt::deallocate(DeviceAddr address) {
    const DeviceAddr relative = address - offset_;
    Bucket& bucket = allocated_[bucket_of(relative)];
    const auto entry =
        std::find_if(bucket.begin(), bucket.end(), [&](const auto& block) { return block.first == relative; });
    if (entry == bucket.end()) {
        return;
    }
    DeviceAddr start = relative;
    DeviceAddr length = block_size_[entry->second];
    unused_indices_.push_back(entry->second);
    bucket.erase(entry);

    auto next = holes_.lower_bound(start);
    if (next != holes_.end() && start + length == next->first) {
        length += next->second;
        next = holes_.erase(next);
    }
    if (next != holes_.begin()) {
        const auto previous = std::prev(next);
        if (previous->first + previous->second == start) {
            start = previous->first;
            length += previous->second;
            holes_.erase(previous);
        }
    }
    holes_.emplace(start, length);
}

void FreeListOpt::clear() {
    for (Bucket& bucket : allocated_) {
        bucket.clear();
    }
    block_address_.clear();
    block_size_.clear();
    unused_indices_.clear();
    holes_.clear();
    holes_.emplace(0, max_size_);
}

std::optional<DeviceAddr> FreeListOpt::get_allocation_size(DeviceAddr address) const {
    const DeviceAddr relative = address - offset_;
    for (const auto& [start, index] : allocated_[bucket_of(relative)]) {
        if (start == relative) {
            return block_size_[index];
        }
    }
    return std::nullopt;
}

bool FreeListOpt::is_address_in_alloc_table(DeviceAddr relative_address) const {
    for (const auto& [start, index] : allocated_[bucket_of(relative_address)]) {
        if (start == relative_address) {
            return true;
        }
    }
    return false;
}

std::size_t FreeListOpt::allocated_blocks() const {
    std::size_t count = 0;
    for (const Bucket& bucket : allocated_) {
        count += bucket.size();
    }
    return count;
}

DeviceAddr FreeListOpt::largest_hole() const {
    DeviceAddr largest = 0;
    for (const auto& hole : holes_) {
        largest = std::max(largest, hole.second);
    }
    return largest;
}

DeviceAddr FreeListOpt::allocated_bytes() const {
    DeviceAddr total = 0;
    for (const Bucket& bucket : allocated_) {
        for (const auto& block : bucket) {
            total += block_size_[block.second];
        }
    }
    return total;
}

}  // namespace tt::tt_metal::allocator
