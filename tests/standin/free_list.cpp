#include "free_list.hpp"

#include <algorithm>
#include <iterator>

namespace tt::tt_metal::allocator {

FreeListOpt::FreeListOpt(DeviceAddr max_size, DeviceAddr offset, DeviceAddr min_allocation, DeviceAddr alignment) :
    Algorithm(max_size, offset, min_allocation, alignment), allocated_(kBuckets) {
    add_hole(0, max_size);
}

std::size_t FreeListOpt::add_block(DeviceAddr address, DeviceAddr size, bool allocated) {
    std::size_t index = block_address_.size();
    if (unused_indices_.empty()) {
        block_exists_.push_back(0);
        block_size_.push_back(0);
        block_address_.push_back(0);
        block_is_allocated_.push_back(0);
    } else {
        index = unused_indices_.back();
        unused_indices_.pop_back();
    }
    block_exists_[index] = 1;
    block_size_[index] = size;
    block_address_[index] = address;
    block_is_allocated_[index] = allocated ? 1 : 0;
    return index;
}

// Leaves address and size as they are: whoever reads them has to look at the flag.
void FreeListOpt::remove_block(std::size_t index) {
    block_exists_[index] = 0;
    unused_indices_.push_back(index);
}

void FreeListOpt::add_hole(DeviceAddr address, DeviceAddr size) {
    if (size > 0) {
        holes_.emplace(address, add_block(address, size, false));
    }
}

std::optional<DeviceAddr> FreeListOpt::allocate(DeviceAddr size, bool /*bottom_up*/, DeviceAddr /*address_limit*/) {
    const DeviceAddr wanted = (std::max(size, min_allocation_) + alignment_ - 1) / alignment_ * alignment_;
    const auto hole =
        std::find_if(holes_.begin(), holes_.end(), [&](const auto& h) { return block_size_[h.second] >= wanted; });
    if (hole == holes_.end()) {
        return std::nullopt;
    }
    const auto [address, index] = *hole;
    const DeviceAddr rest = block_size_[index] - wanted;
    holes_.erase(hole);
    block_size_[index] = wanted;
    block_is_allocated_[index] = 1;
    add_hole(address + wanted, rest);
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
    remove_block(entry->second);
    bucket.erase(entry);

    auto next = holes_.lower_bound(start);
    if (next != holes_.end() && start + length == next->first) {
        length += block_size_[next->second];
        remove_block(next->second);
        next = holes_.erase(next);
    }
    if (next != holes_.begin()) {
        const auto previous = std::prev(next);
        if (previous->first + block_size_[previous->second] == start) {
            start = previous->first;
            length += block_size_[previous->second];
            remove_block(previous->second);
            holes_.erase(previous);
        }
    }
    add_hole(start, length);
}

void FreeListOpt::clear() {
    for (Bucket& bucket : allocated_) {
        bucket.clear();
    }
    block_exists_.clear();
    block_size_.clear();
    block_address_.clear();
    block_is_allocated_.clear();
    unused_indices_.clear();
    holes_.clear();
    add_hole(shrunk_, max_size_);
}

Statistics FreeListOpt::get_statistics() const {
    DeviceAddr allocated = 0;
    DeviceAddr free = 0;
    DeviceAddr largest_free = 0;
    for (std::size_t index = 0; index < block_address_.size(); ++index) {
        if (block_exists_[index] == 0) {
            continue;
        }
        if (block_is_allocated_[index] != 0) {
            allocated += block_size_[index];
        } else {
            free += block_size_[index];
            largest_free = std::max(largest_free, block_size_[index]);
        }
    }
    return {max_size_, allocated, free, largest_free};
}

std::size_t FreeListOpt::holes() const { return holes_.size(); }

void FreeListOpt::shrink_size(DeviceAddr size, bool bottom_up) {
    if (size == 0) {
        return;
    }
    const auto hole = holes_.find(shrunk_);
    if (!bottom_up || hole == holes_.end() || block_size_[hole->second] < size) {
        throw_error("Shrink size is not free");
    }
    const std::size_t index = hole->second;
    const DeviceAddr rest = block_size_[index] - size;
    const DeviceAddr start = block_address_[index] + size;
    holes_.erase(hole);
    remove_block(index);
    max_size_ -= size;
    shrunk_ += size;
    add_hole(start, rest);
}

void FreeListOpt::reset_size() {
    if (shrunk_ == 0) {
        return;
    }
    DeviceAddr length = shrunk_;
    const auto next = holes_.find(shrunk_);
    if (next != holes_.end()) {
        length += block_size_[next->second];
        remove_block(next->second);
        holes_.erase(next);
    }
    max_size_ += shrunk_;
    shrunk_ = 0;
    add_hole(0, length);
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
        largest = std::max(largest, block_size_[hole.second]);
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
