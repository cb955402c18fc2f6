#include "allocator.hpp"

#include <algorithm>
#include <atomic>

namespace tt::tt_metal {

// Pointers to members are offsets in a table: the code that the real library's switch turns into.
const std::array<AllocatorImpl::BankManagerMember, kBufferTypes> AllocatorImpl::kManagers = {
    &AllocatorImpl::dram_, &AllocatorImpl::l1_, &AllocatorImpl::system_, &AllocatorImpl::l1_small_,
    &AllocatorImpl::trace_};
const std::array<AllocatorImpl::AlignmentMember, kBufferTypes> AllocatorImpl::kAlignments = {
    &AllocatorConfig::dram_alignment, &AllocatorConfig::l1_alignment, &AllocatorConfig::system_alignment,
    &AllocatorConfig::l1_small_alignment, &AllocatorConfig::trace_alignment};

namespace {
[[gnu::always_inline]] inline std::size_t checked(BufferType type) {
    const auto index = static_cast<std::uint32_t>(type);
    if (index >= kBufferTypes) {
        throw_error("Unsupported buffer type");
    }
    return index;
}
}  // namespace

AllocatorImpl::AllocatorImpl(const AllocatorConfig& config) :
    config_(std::make_unique<AllocatorConfig>(config)), view_(std::make_unique<Allocator>(this)) {
    for (std::size_t type = 0; type < kBufferTypes; ++type) {
        this->*kManagers[type] = std::make_unique<BankManager>(static_cast<BufferType>(type), config.pools[type]);
    }
}

AllocatorImpl::~AllocatorImpl() {}

DeviceAddr AllocatorImpl::allocate_buffer(Buffer* buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (buffer->state().per_core) {
        return allocate_per_core(buffer);
    }
    BankManager& manager = *(this->*kManagers[checked(buffer->buffer_type())]);
    const DeviceAddr address =
        manager.allocate_buffer(buffer->aligned_size(), buffer->aligned_page_size(), buffer->num_cores());
    allocated_buffers_.insert(buffer);
    note_owner(buffer, address);
    return address;
}

void AllocatorImpl::note_owner(Buffer* const& buffer, DeviceAddr address) {
    owners_[{buffer->buffer_type(), 0, address}] = buffer;
}

namespace {
// Cores are dealt out in rows of 8.
std::uint32_t bank_of(const CoreCoord& core) { return static_cast<std::uint32_t>(core.y * 8 + core.x); }
}  // namespace

DeviceAddr AllocatorImpl::allocate_per_core(Buffer* buffer) {
    if (buffer->buffer_type() != BufferType::L1 || !buffer->state().shard_spec.has_value()) {
        throw_error("Only shards in L1 can have an address on each core");
    }
    BankManager& manager = *l1_;
    CoreAddresses addresses;
    std::optional<DeviceAddr> first;
    for (const CoreRange& range : buffer->state().shard_spec->grid.ranges()) {
        for (std::uint64_t y = range.start.y; y <= range.end.y; ++y) {
            for (std::uint64_t x = range.start.x; x <= range.end.x; ++x) {
                const std::uint32_t bank = bank_of({x, y});
                const DeviceAddr address = manager.allocate_on_bank(bank, buffer->aligned_size_per_bank());
                addresses[{x, y}] = address;
                first = first.value_or(address);
                owners_[{BufferType::L1, bank + 1, address}] = buffer;
            }
        }
    }
    buffer->state().core_addresses = std::move(addresses);
    allocated_buffers_.insert(buffer);
    return first.value();
}

// Core by core, by address alone, whosever the block is by now.
void AllocatorImpl::deallocate_per_core(Buffer* buffer) {
    for (const auto& [core, address] : buffer->state().core_addresses) {
        l1_->deallocate_on_bank(bank_of(core), address);
        owners_.erase({BufferType::L1, bank_of(core) + 1, address});
    }
    allocated_buffers_.erase(buffer);
}

namespace {
std::atomic<bool> parking = false;
std::atomic<bool> parked = false;

[[gnu::noinline]] void park() {
    parked = true;
    parked.notify_all();
    parking.wait(true);
    parked = false;
}
}  // namespace

void AllocatorImpl::park_frees(bool on) {
    parking = on;
    parking.notify_all();
}

void AllocatorImpl::wait_for_parked_free() { parked.wait(false); }

void AllocatorImpl::deallocate_buffer(Buffer* buffer) {
    if (parking) {
        park();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (buffer->state().per_core) {
        deallocate_per_core(buffer);
        return;
    }
    const DeviceAddr address = buffer->address();
    BankManager& manager = *(this->*kManagers[checked(buffer->buffer_type())]);
    // By address alone, like the real one: if the buffer's own block is gone already, this takes
    // that of whoever is there now.
    manager.deallocate_buffer(address);
    owners_.erase({buffer->buffer_type(), 0, address});
    allocated_buffers_.erase(buffer);
}

void AllocatorImpl::deallocate_buffers() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const BankManagerMember manager : kManagers) {
        (this->*manager)->deallocate_all();
    }
    owners_.clear();
}

void AllocatorImpl::shrink_allocator_size(const BufferType& type, DeviceAddr size, bool bottom_up) {
    const std::lock_guard<std::mutex> lock(mutex_);
    (this->*kManagers[checked(type)])->shrink_size(size, bottom_up);
}

void AllocatorImpl::reset_allocator_size(const BufferType& type) {
    const std::lock_guard<std::mutex> lock(mutex_);
    (this->*kManagers[checked(type)])->reset_size();
}

std::uint32_t AllocatorImpl::get_num_banks(const BufferType& type) const {
    return (this->*kManagers[checked(type)])->num_banks();
}

DeviceAddr AllocatorImpl::get_bank_size(const BufferType& type) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    switch (type) {
        case BufferType::DRAM: return dram_->bank_size();
        case BufferType::L1: return l1_->bank_size();
        case BufferType::SYSTEM_MEMORY: return system_->bank_size();
        case BufferType::L1_SMALL: return l1_small_->bank_size();
        case BufferType::TRACE: return trace_->bank_size();
    }
    throw_error("Unsupported buffer type");
}

std::uint32_t AllocatorImpl::get_alignment(BufferType type) const { return (*config_).*kAlignments[checked(type)]; }

std::size_t AllocatorImpl::get_num_allocated_buffers() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return allocated_buffers_.size();
}

std::unordered_set<Buffer*> AllocatorImpl::get_allocated_buffers() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return allocated_buffers_;
}

const std::unique_ptr<Allocator>& AllocatorImpl::view() const { return view_; }

std::uint32_t Allocator::get_num_banks(const BufferType& type) const { return impl_->get_num_banks(type); }
DeviceAddr Allocator::get_bank_size(const BufferType& type) const { return impl_->get_bank_size(type); }

std::vector<BufferTruth> AllocatorImpl::live_truth() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<BufferTruth> live;
    for (const Buffer* buffer : allocated_buffers_) {
        const bool per_core = buffer->state().per_core;
        const auto& cores = buffer->state().core_addresses;
        const auto owns = [&](std::uint32_t list, DeviceAddr address) {
            const auto owner = owners_.find({buffer->buffer_type(), list, address});
            return owner != owners_.end() && owner->second == buffer;
        };
        const auto owned = std::count_if(
            cores.begin(), cores.end(), [&](const auto& core) { return owns(bank_of(core.first) + 1, core.second); });
        if (per_core ? owned == 0 : !owns(0, buffer->state().address)) {
            continue;
        }
        BufferTruth truth;
        truth.cores = static_cast<std::uint32_t>(owned);
        truth.buffer = buffer;
#ifndef TTMEM_STANDIN_INLINE
        truth.unique_id = buffer->unique_id();
#endif
        truth.type = buffer->buffer_type();
        truth.address = buffer->state().address;
        truth.size = buffer->size();
        truth.page_size = buffer->page_size();
        const BankManager& manager = *(this->*kManagers[checked(truth.type)]);
        for (const auto& [core, address] : cores) {
            const auto block = manager.list_of_bank(bank_of(core)).get_allocation_size(address);
            truth.bank_bytes = std::max(truth.bank_bytes, block.value_or(0));
        }
        if (!per_core) {
            truth.bank_bytes = manager.free_list().get_allocation_size(truth.address).value_or(0);
        }
        live.push_back(truth);
    }
    return live;
}

std::array<PoolTruth, kBufferTypes> AllocatorImpl::pool_truth() const {
    std::array<PoolTruth, kBufferTypes> truth{};
    std::array<DeviceAddr, kBufferTypes> of_buffers{};
    std::array<DeviceAddr, kBufferTypes> of_cores{};
    for (const BufferTruth& buffer : live_truth()) {
        const std::size_t type = checked(buffer.type);
        truth[type].buffers += 1;
        truth[type].logical_bytes += buffer.size;
        (buffer.cores > 0 ? of_cores : of_buffers)[type] += buffer.bank_bytes * std::max(buffer.cores, 1U);
        truth[type].per_core_buffers += buffer.cores > 0 ? 1 : 0;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t type = 0; type < kBufferTypes; ++type) {
        const BankManager& manager = *(this->*kManagers[type]);
        PoolTruth& pool = truth[type];
        pool.bank_bytes = manager.free_list().allocated_bytes();
        pool.banks = manager.num_banks();
        pool.bank_size = manager.bank_size();
        const allocator::Statistics statistics = manager.free_list().get_statistics();
        pool.base = manager.free_list().offset() + manager.free_list().shrunk();
        pool.free = statistics.free;
        pool.largest_free = statistics.largest_free;
        pool.holes = manager.free_list().holes();
        pool.hybrid = manager.is_hybrid();
        for (std::uint32_t bank = 0; pool.hybrid && bank < pool.banks; ++bank) {
            pool.core_bytes += manager.list_of_bank(bank).get_statistics().allocated;
        }
        pool.consistent =
            pool.core_bytes == of_cores[type] && pool.bank_bytes == of_buffers[type] && statistics.allocated == pool.bank_bytes &&
            statistics.free == statistics.total - statistics.allocated && 
            pool.buffers - pool.per_core_buffers == manager.free_list().allocated_blocks();
    }
    return truth;
}

#ifndef TTMEM_STANDIN_OLD
L1BankingAllocator::L1BankingAllocator(const AllocatorConfig& config) : AllocatorImpl(config) {}
L1BankingAllocator::~L1BankingAllocator() {}
#endif

}  // namespace tt::tt_metal
