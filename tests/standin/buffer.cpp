// The exported getters. They are small and straight, so that what a compiler makes of them can be
// decoded the way ttmem decodes the real ones.
#include "buffer.hpp"

#include "allocator.hpp"

namespace tt::tt_metal {

#ifndef TTMEM_STANDIN_INLINE
Buffer::Buffer(BufferImpl impl) : impl_(std::make_unique<BufferImpl>(std::move(impl))) {}
BufferImpl* Buffer::impl() { return impl_.get(); }
const BufferImpl* Buffer::impl() const { return impl_.get(); }
IDevice* Buffer::device() const { return state().device; }
DeviceAddr Buffer::size() const { return state().size; }
BufferType Buffer::buffer_type() const { return state().type; }
TensorMemoryLayout Buffer::buffer_layout() const { return state().layout; }
std::size_t Buffer::unique_id() const { return state().unique_id; }
bool Buffer::has_shard_spec() const { return state().shard_spec.has_value(); }
#endif

std::uint32_t Buffer::address() const {
    if (state().status == AllocationStatus::ALLOCATION_REQUESTED) {
        throw_error("Can only query the address of a buffer that has been allocated");
    }
    return static_cast<std::uint32_t>(state().address);
}

DeviceAddr Buffer::page_size() const { return state().page_size; }
bool Buffer::is_allocated() const { return state().status == AllocationStatus::ALLOCATED; }
bool Buffer::is_dram() const { return state().type == BufferType::DRAM || state().type == BufferType::TRACE; }
bool Buffer::is_l1() const { return state().type == BufferType::L1 || state().type == BufferType::L1_SMALL; }
bool Buffer::is_trace() const { return state().type == BufferType::TRACE; }
Allocator* Buffer::allocator() const { return state().allocator->view().get(); }

std::uint32_t Buffer::num_pages() const {
    return state().page_size == 0 ? 0 : static_cast<std::uint32_t>(state().size / state().page_size);
}

std::optional<std::uint32_t> Buffer::num_cores() const {
    const BufferState& fields = state();
    if (!is_sharded(fields.layout)) {
        return std::nullopt;
    }
    if (fields.distribution_spec.has_value()) {
        return static_cast<std::uint32_t>(fields.distribution_spec->num_cores_with_data());
    }
    return fields.shard_spec->grid.num_cores();
}

std::uint32_t Buffer::num_dev_pages() const {
    const BufferState& fields = state();
    if (!is_sharded(fields.layout)) {
        return fields.page_size == 0 ? 0 : static_cast<std::uint32_t>(fields.size / fields.page_size);
    }
    if (fields.shard_spec.has_value()) {
        const ShardSpecBuffer& spec = *fields.shard_spec;
        const std::uint32_t high = spec.page_shape[0] == 0 ? 0 : spec.shape[0] / spec.page_shape[0];
        const std::uint32_t wide = spec.page_shape[1] == 0 ? 0 : spec.shape[1] / spec.page_shape[1];
        const std::uint32_t cores = fields.distribution_spec.has_value()
                                        ? static_cast<std::uint32_t>(fields.distribution_spec->num_cores_with_data())
                                        : spec.grid.num_cores();
        return high * wide * cores;
    }
    if (!fields.distribution_spec.has_value()) {
        throw_error("A sharded buffer has neither a shard spec nor a distribution spec");
    }
    const BufferDistributionSpec& spec = *fields.distribution_spec;
    return static_cast<std::uint32_t>(spec.max_pages_per_core() * spec.num_cores_with_data());
}

DeviceAddr Buffer::aligned_page_size() const {
    const DeviceAddr page_size = state().page_size;
    const DeviceAddr mask = state().allocator->get_alignment(state().type) - 1;
    return ((page_size - 1) | mask) + 1;
}

DeviceAddr Buffer::aligned_size() const { return num_dev_pages() * aligned_page_size(); }

DeviceAddr Buffer::aligned_size_per_bank() const {
    const BufferState& fields = state();
    std::uint32_t banks = 0;
    if (!is_sharded(fields.layout)) {
        banks = fields.allocator->get_num_banks(fields.type);
    } else if (fields.distribution_spec.has_value()) {
        banks = static_cast<std::uint32_t>(fields.distribution_spec->num_cores_with_data());
    } else {
        banks = fields.shard_spec->grid.num_cores();
    }
    return detail::calculate_bank_size_spread(
        aligned_size(), aligned_page_size(), banks, fields.allocator->get_alignment(fields.type));
}

namespace experimental::per_core_allocation {
bool is_per_core_allocation(const Buffer& buffer) { return buffer.state().per_core; }
const CoreAddresses& get_per_core_addresses(const Buffer& buffer) { return buffer.state().core_addresses; }

DeviceAddr get_per_core_address(const Buffer& buffer, CoreCoord core) {
    if (!buffer.state().per_core) {
        throw_error("The buffer has one address for all cores");
    }
    const auto found = buffer.state().core_addresses.find(core);
    if (found == buffer.state().core_addresses.end()) {
        throw_error("No per-core address for this core");
    }
    return found->second;
}
}  // namespace experimental::per_core_allocation

}  // namespace tt::tt_metal
