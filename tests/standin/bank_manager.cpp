#include "allocator.hpp"
#include "tt_throw.hpp"

namespace tt::tt_metal {

namespace {
constexpr std::array<std::string_view, kBufferTypes> kTypeNames = {"DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"};
}  // namespace

BankManager::BankManager(BufferType type, const PoolConfig& pool) : type_(type), alignment_(pool.alignment) {
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

void BankManager::deallocate_buffer(DeviceAddr address) { algorithms_[0]->deallocate(address); }
void BankManager::deallocate_all() { algorithms_[0]->clear(); }

void BankManager::shrink_size(DeviceAddr size, bool bottom_up) {
    static_cast<allocator::FreeListOpt&>(*algorithms_[0]).shrink_size(size, bottom_up);
}

void BankManager::reset_size() { static_cast<allocator::FreeListOpt&>(*algorithms_[0]).reset_size(); }

const allocator::FreeListOpt& BankManager::free_list() const {
    return static_cast<const allocator::FreeListOpt&>(*algorithms_[0]);
}

}  // namespace tt::tt_metal
