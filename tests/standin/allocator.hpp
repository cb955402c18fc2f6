// AllocatorImpl: one per device, mesh or submesh; five pools and the set of live buffers.
#pragma once

#include <map>
#include <tuple>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "buffer.hpp"
#include "free_list.hpp"

namespace tt::tt_metal {

/// Geometry of one pool.
struct PoolConfig {
    std::uint32_t banks = 0;
    std::uint32_t alignment = 0;
    DeviceAddr bank_size = 0;
    DeviceAddr base = 0;
    /// What the free list rounds blocks up to: more than the alignment of pages, in L1.
    DeviceAddr block_unit = 0;
};

struct AllocatorConfig {
    std::array<std::uint64_t, 4> spacer{};
    std::uint32_t trace_alignment = 0;
    std::uint32_t dram_alignment = 0;
    std::uint32_t system_alignment = 0;
    std::uint32_t l1_alignment = 0;
    std::uint32_t l1_small_alignment = 0;
    std::array<PoolConfig, kBufferTypes> pools{};
};

class BankManager {
public:
    BankManager(BufferType type, const PoolConfig& pool);
    DeviceAddr allocate_buffer(DeviceAddr size, DeviceAddr page_size, std::optional<std::uint32_t> num_shards);
    void deallocate_buffer(DeviceAddr address);
    void deallocate_all();
    /// Of one bank, from a free list of its own; the first call makes these lists.
    DeviceAddr allocate_on_bank(std::uint32_t bank, DeviceAddr per_bank);
    void deallocate_on_bank(std::uint32_t bank, DeviceAddr address);
    allocator::Statistics get_statistics(AllocatorID id) const;
    /// Whether there are free lists of single banks.
    bool is_hybrid() const { return num_lists_ > 1; }
    const allocator::FreeListOpt& list_of_bank(std::uint32_t bank) const;
    std::uint32_t num_banks() const { return static_cast<std::uint32_t>(bank_offsets_.size()); }
    DeviceAddr bank_size() const { return algorithms_[0] ? algorithms_[0]->max_size() : 0; }
    const allocator::FreeListOpt& free_list() const;
    void shrink_size(DeviceAddr size, bool bottom_up);
    void reset_size();

private:
    BufferType type_;
    std::uint32_t num_lists_ = 1;
    std::uint64_t spacer_ = 0;
    std::unordered_map<std::uint32_t, std::int64_t> bank_offsets_;
    std::uint32_t alignment_;
    std::array<std::uint64_t, 30> spacer_before_algorithms_{};
    std::vector<std::unique_ptr<allocator::Algorithm>> algorithms_;
    DeviceAddr block_unit_;
};

/// What the allocator's own tables say of one pool: the truth that ttmem is compared with.
struct PoolTruth {
    std::size_t buffers = 0;
    DeviceAddr logical_bytes = 0;
    /// Of each bank, what all banks share.
    DeviceAddr bank_bytes = 0;
    /// Of all banks, what buffers take that have an address on each core; how many they are.
    DeviceAddr core_bytes = 0;
    std::size_t per_core_buffers = 0;
    /// Whether single banks have free lists.
    bool hybrid = false;
    std::uint32_t banks = 0;
    DeviceAddr bank_size = 0;
    /// Address of the first byte that can be allocated.
    DeviceAddr base = 0;
    DeviceAddr free = 0;
    DeviceAddr largest_free = 0;
    std::size_t holes = 0;
    /// Whether the set of live buffers and the block table agree.
    bool consistent = false;
};

/// One live buffer.
struct BufferTruth {
    const Buffer* buffer = nullptr;
    std::optional<std::size_t> unique_id;
    BufferType type = BufferType::DRAM;
    DeviceAddr address = 0;
    DeviceAddr size = 0;
    DeviceAddr page_size = 0;
    /// Of each bank that it lies on.
    DeviceAddr bank_bytes = 0;
    /// The number of cores with an address of their own; 0: it lies on every bank.
    std::uint32_t cores = 0;
};

/// What `Buffer::allocator()` hands out.
class Allocator {
public:
    explicit Allocator(AllocatorImpl* impl) : impl_(impl) {}
    std::uint32_t get_num_banks(const BufferType& type) const;
    DeviceAddr get_bank_size(const BufferType& type) const;

private:
    AllocatorImpl* impl_;
};

class AllocatorImpl {
public:
    explicit AllocatorImpl(const AllocatorConfig& config);
#ifdef TTMEM_STANDIN_OLD
    ~AllocatorImpl();
#else
    virtual ~AllocatorImpl();
#endif

    DeviceAddr allocate_buffer(Buffer* buffer);
    void deallocate_buffer(Buffer* buffer);
    /// While on, a free stops at its beginning, after the function was entered and before anything has
    /// changed, until this is off again.
    static void park_frees(bool on);
    /// Waits until a free has stopped there.
    static void wait_for_parked_free();
    /// Clears the block tables and, like the real one, leaves the set of live buffers alone.
    void deallocate_buffers();

    std::uint32_t get_num_banks(const BufferType& type) const;
    DeviceAddr get_bank_size(const BufferType& type) const;
    std::uint32_t get_alignment(BufferType type) const;
    std::size_t get_num_allocated_buffers() const;
    std::unordered_set<Buffer*> get_allocated_buffers() const;
    const std::unique_ptr<Allocator>& view() const;

    /// Gives bytes at the start of a type's banks away; throws where they are not free.
    void shrink_allocator_size(const BufferType& type, DeviceAddr size, bool bottom_up);
    /// Takes them back.
    void reset_allocator_size(const BufferType& type);
    const AllocatorConfig& get_config() const { return *config_; }

    std::array<PoolTruth, kBufferTypes> pool_truth() const;
    std::vector<BufferTruth> live_truth() const;

private:
    using BankManagerMember = std::unique_ptr<BankManager> AllocatorImpl::*;
    using AlignmentMember = std::uint32_t AllocatorConfig::*;
    [[gnu::visibility("hidden")]] static const std::array<BankManagerMember, kBufferTypes> kManagers;
    [[gnu::visibility("hidden")]] static const std::array<AlignmentMember, kBufferTypes> kAlignments;

    mutable std::mutex mutex_;
    std::array<std::uint64_t, 2> spacer_{};
    // Not in the order of BufferType: reading one offset and counting on is wrong.
    std::unique_ptr<BankManager> trace_;
    std::unique_ptr<BankManager> dram_;
    std::unique_ptr<BankManager> system_;
    std::unique_ptr<BankManager> l1_;
    std::unique_ptr<BankManager> l1_small_;
    std::array<std::uint64_t, 9> spacer_before_set_{};
    std::unordered_set<Buffer*> allocated_buffers_;
    std::unique_ptr<AllocatorConfig> config_;
    std::unique_ptr<Allocator> view_;
    DeviceAddr allocate_per_core(Buffer* buffer);
    void deallocate_per_core(Buffer* buffer);
    /// Type, number of the free list, address.
    using Place = std::tuple<BufferType, std::uint32_t, DeviceAddr>;
    // Whose each block is. A buffer that is not here has lost its own, and still awaits its free.
    /// By reference, so that the allocation keeps its buffer on the stack, like the real one.
    [[gnu::noipa]] void note_owner(Buffer* const& buffer, DeviceAddr address);

    std::map<Place, const Buffer*> owners_;
};

#ifdef TTMEM_STANDIN_OLD
using L1BankingAllocator = AllocatorImpl;
#else
class L1BankingAllocator : public AllocatorImpl {
public:
    explicit L1BankingAllocator(const AllocatorConfig& config);
    ~L1BankingAllocator() override;
};
#endif

}  // namespace tt::tt_metal
