#include "allocator.hpp"
#include "tt_throw.hpp"

namespace tt::tt_metal {

namespace {
constexpr std::array<std::string_view, kBufferTypes> kTypeNames = {"DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"};
}  // namespace

BankManager::BankManager(BufferType type, const PoolConfig& pool) : type_(type), alignment_(pool.alignment), block_unit_(pool.block_unit) {
    for (std::uint32_t bank = 0; bank < pool.banks; ++bank) {
        bank_offsets_.emplace(bank, 0);
    }
    algorithms_.push_back(
        std::make_unique<allocator::FreeListOpt>(pool.bank_size, pool.base, pool.block_unit, pool.block_unit));
}

DeviceAddr BankManager::allocate_buffer(
    DeviceAddr size, DeviceAddr page_size, std::optional<std::uint32_t> num_shards) {
    const DeviceAddr per_bank =
        detail::calculate_bank_size_spread(size, page_size, num_shards.value_or(num_banks()), alignment_);
    const std::optional<DeviceAddr> address = algorithms_[0]->allocate(per_bank, true, 0);
    if (!address.has_value()) {
        const allocator::FreeListOpt& blocks = free_list();
        const std::string_view type = kTypeNames[static_cast<std::size_t>(type_)];
        const unsigned int banks = num_banks();
        const DeviceAddr capacity = bank_size();
        const DeviceAddr allocated = blocks.allocated_bytes();
        const DeviceAddr free = capacity - allocated;
        const DeviceAddr largest = blocks.largest_hole();
        tt::assert::detail::tt_throw(
            __FILE__, __LINE__, "allocate_buffer", "address.has_value()",
            "Out of Memory: Not enough space to allocate {} B {} buffer across {} banks, where each bank needs to "
            "store {} B, but bank size is {} B (allocated: {} B, free: {} B, largest free block: {} B)",
            size, type, banks, per_bank, capacity, allocated, free, largest);
    }
    return *address;
}

DeviceAddr BankManager::allocate_on_bank(std::uint32_t bank, DeviceAddr per_bank) {
    if (!is_hybrid()) {
        const allocator::FreeListOpt& shared = free_list();
        for (std::uint32_t other = 0; other < num_banks(); ++other) {
            algorithms_.push_back(std::make_unique<allocator::FreeListOpt>(
                shared.max_size(), shared.offset(), block_unit_, block_unit_));
        }
        num_lists_ = static_cast<std::uint32_t>(algorithms_.size());
    }
    const std::optional<DeviceAddr> address = algorithms_.at(bank + 1)->allocate(per_bank, false, 0);
    if (!address.has_value()) {
        throw_error("Out of Memory on one core");
    }
    return *address;
}

void BankManager::deallocate_on_bank(std::uint32_t bank, DeviceAddr address) {
    algorithms_.at(bank + 1)->deallocate(address);
}

allocator::Statistics BankManager::get_statistics(AllocatorID id) const {
    if (*id >= num_lists_) {
        throw_error("There is no such free list");
    }
    const auto& list = algorithms_[*id];
    return list ? static_cast<const allocator::FreeListOpt&>(*list).get_statistics() : allocator::Statistics{};
}

const allocator::FreeListOpt& BankManager::list_of_bank(std::uint32_t bank) const {
    return static_cast<const allocator::FreeListOpt&>(*algorithms_.at(bank + 1));
}

void BankManager::deallocate_buffer(DeviceAddr address) { algorithms_[0]->deallocate(address); }
void BankManager::deallocate_all() {
    for (const auto& list : algorithms_) {
        list->clear();
    }
}


void BankManager::shrink_size(DeviceAddr size, bool bottom_up) {
    static_cast<allocator::FreeListOpt&>(*algorithms_[0]).shrink_size(size, bottom_up);
}

void BankManager::reset_size() { static_cast<allocator::FreeListOpt&>(*algorithms_[0]).reset_size(); }

const allocator::FreeListOpt& BankManager::free_list() const {
    return static_cast<const allocator::FreeListOpt&>(*algorithms_[0]);
}

}  // namespace tt::tt_metal
