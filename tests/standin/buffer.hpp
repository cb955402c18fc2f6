// Buffer in both layout families: fields behind a pointer (tt-metal 0.79 and later) or inline
// (before), chosen by TTMEM_STANDIN_INLINE.
#pragma once

#include <atomic>
#include <memory>

#include "types.hpp"

namespace tt::tt_metal {

class Allocator;
class AllocatorImpl;
class Buffer;
class IDevice;

enum class AllocationStatus : std::uint8_t { ALLOCATION_REQUESTED, ALLOCATED, DEALLOCATED };

/// The fields of a buffer, in tt-metal's order. The spacers move every offset away from those of
/// the real library: a reader that passes here has decoded them, not remembered them.
struct BufferState {
#ifdef TTMEM_STANDIN_INLINE
    std::array<std::uint64_t, 3> spacer{};
#else
    std::array<std::uint64_t, 2> spacer{};
#endif
    IDevice* device = nullptr;
    DeviceAddr size = 0;
    BufferType type = BufferType::DRAM;
    TensorMemoryLayout layout = TensorMemoryLayout::INTERLEAVED;
    bool bottom_up = true;
    bool owns_data = true;
    std::optional<std::uint64_t> sub_device_manager;
    AllocatorImpl* allocator = nullptr;
    std::uint64_t spacer_before_status = 0;
    AllocationStatus status = AllocationStatus::ALLOCATION_REQUESTED;
    bool hooked = false;
    DeviceAddr address = 0;
    DeviceAddr page_size = 0;
    std::optional<ShardSpecBuffer> shard_spec;
    std::uint64_t spacer_between_specs = 0;
    std::optional<BufferDistributionSpec> distribution_spec;
    bool per_core = false;
    std::uint64_t spacer_before_addresses = 0;
    CoreAddresses core_addresses;
    std::array<std::uint64_t, 6> page_mapping{};
    std::size_t unique_id = 0;
};

#ifndef TTMEM_STANDIN_INLINE
class BufferImpl {
public:
    BufferImpl(
        IDevice* device,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device,
        bool owns_data);
    static std::shared_ptr<Buffer> create(
        IDevice* device,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device);
    /// At an address that somebody else owns: a view of a mesh buffer on one chip, or memory that the
    /// caller has set aside. No allocator hears of it.
    static std::shared_ptr<Buffer> create(
        IDevice* device,
        DeviceAddr address,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device);
    void allocate_impl(Buffer& buffer);
    void deallocate_impl(Buffer& buffer);
    void deallocate(Buffer& buffer);

    BufferState state;
    static std::atomic<std::size_t> next_unique_id;
};
#endif

class Buffer final : public std::enable_shared_from_this<Buffer> {
#ifdef TTMEM_STANDIN_INLINE
    struct Private {};
#endif

public:
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    std::uint32_t address() const;
    DeviceAddr page_size() const;
    bool is_allocated() const;
    bool is_dram() const;
    bool is_l1() const;
    bool is_trace() const;
    Allocator* allocator() const;
    std::uint32_t num_pages() const;
    std::uint32_t num_dev_pages() const;
    std::optional<std::uint32_t> num_cores() const;
    DeviceAddr aligned_page_size() const;
    DeviceAddr aligned_size() const;
    DeviceAddr aligned_size_per_bank() const;

#ifdef TTMEM_STANDIN_INLINE
    // Header-only in this family, hence absent from the symbol table.
    [[gnu::always_inline]] IDevice* device() const { return state_.device; }
    [[gnu::always_inline]] DeviceAddr size() const { return state_.size; }
    [[gnu::always_inline]] BufferType buffer_type() const { return state_.type; }
    [[gnu::always_inline]] TensorMemoryLayout buffer_layout() const { return state_.layout; }
    [[gnu::always_inline]] std::size_t unique_id() const { return state_.unique_id; }

    Buffer(
        IDevice* device,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device,
        bool owns_data,
        Private);
    static std::shared_ptr<Buffer> create(
        IDevice* device,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device);
    /// At an address that somebody else owns: a view of a mesh buffer on one chip, or memory that the
    /// caller has set aside. No allocator hears of it.
    static std::shared_ptr<Buffer> create(
        IDevice* device,
        DeviceAddr address,
        DeviceAddr size,
        DeviceAddr page_size,
        BufferType type,
        const BufferShardingArgs& sharding,
        std::optional<bool> bottom_up,
        std::optional<SubDeviceId> sub_device);
    void deallocate();
    static std::atomic<std::size_t> next_unique_id;

    [[gnu::always_inline]] BufferState& state() { return state_; }
    [[gnu::always_inline]] const BufferState& state() const { return state_; }

private:
    void allocate_impl();
    void deallocate_impl();
    BufferState state_;
#else
    IDevice* device() const;
    DeviceAddr size() const;
    BufferType buffer_type() const;
    TensorMemoryLayout buffer_layout() const;
    std::size_t unique_id() const;
    bool has_shard_spec() const;

    explicit Buffer(BufferImpl impl);
    BufferImpl* impl();
    const BufferImpl* impl() const;

    [[gnu::always_inline]] BufferState& state() { return impl_->state; }
    [[gnu::always_inline]] const BufferState& state() const { return impl_->state; }

private:
    std::unique_ptr<BufferImpl> impl_;
#endif
};

#ifdef TTMEM_STANDIN_INLINE
using BufferFactory = Buffer;
#else
using BufferFactory = BufferImpl;
#endif

namespace experimental::per_core_allocation {
/// Whether each core of the buffer has an address of its own.
bool is_per_core_allocation(const Buffer& buffer);
/// The address on each core.
const CoreAddresses& get_per_core_addresses(const Buffer& buffer);
/// Throws if the buffer is not on that core.
DeviceAddr get_per_core_address(const Buffer& buffer, CoreCoord core);
}  // namespace experimental::per_core_allocation

}  // namespace tt::tt_metal
