// A buffer's way from creation to its free: which functions are entered, and in which order, is
// what ttmem relies on.
#include "allocator.hpp"
#include "buffer.hpp"
#include "device.hpp"
#include "graph_tracker.hpp"

namespace tt::tt_metal {
namespace {

[[gnu::always_inline]] inline void fill(
    BufferState& state,
    IDevice* device,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device,
    bool owns_data,
    std::size_t unique_id) {
    state.device = device;
    state.size = size;
    state.page_size = page_size;
    state.type = type;
    state.layout = sharding.layout;
    state.shard_spec = sharding.shard_spec;
    state.distribution_spec = sharding.distribution_spec;
    state.per_core = sharding.per_core;
    state.bottom_up = bottom_up.value_or(type == BufferType::DRAM);
    state.owns_data = owns_data;
    if (sub_device.has_value()) {
        state.sub_device_manager = *device->active_sub_device_manager();
        state.allocator = device->sub_device_allocator(*sub_device);
    } else {
        state.allocator = device->allocator_impl().get();
    }
    state.unique_id = unique_id;
}

[[gnu::always_inline]] inline void allocate(BufferState& state, Buffer& buffer) {
    if (GraphTracker::instance().hook_allocate(&buffer)) {
        state.address = 0;
        state.hooked = true;
    } else {
        state.address = state.allocator->allocate_buffer(&buffer);
    }
    // Before the tracker is told: listeners ask for the address.
    state.status = AllocationStatus::ALLOCATED;
    GraphTracker::instance().track_allocate(&buffer);
}

[[gnu::always_inline]] inline void deallocate(BufferState& state, Buffer& buffer) {
    if (state.status != AllocationStatus::ALLOCATED) {
        return;
    }
    // After its device was closed a buffer goes without any further call; a mesh's allocator is
    // gone by then.
    if (state.device->is_initialized() && state.size != 0) {
        GraphTracker::instance().track_deallocate(&buffer);
        if (!GraphTracker::instance().hook_deallocate(&buffer) && !state.hooked) {
            state.allocator->deallocate_buffer(&buffer);
        }
    }
    state.status = AllocationStatus::DEALLOCATED;
}

}  // namespace

#ifdef TTMEM_STANDIN_INLINE

std::atomic<std::size_t> Buffer::next_unique_id = 0;

Buffer::Buffer(
    IDevice* device,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device,
    bool owns_data,
    Private) {
    fill(state_, device, size, page_size, type, sharding, bottom_up, sub_device, owns_data, next_unique_id.fetch_add(1));
}

std::shared_ptr<Buffer> Buffer::create(
    IDevice* device,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device) {
    auto buffer =
        std::make_shared<Buffer>(device, size, page_size, type, sharding, bottom_up, sub_device, true, Private{});
    if (size == 0) {
        buffer->state_.status = AllocationStatus::ALLOCATED;
    } else {
        buffer->allocate_impl();
    }
    return buffer;
}

std::shared_ptr<Buffer> Buffer::create(
    IDevice* device,
    DeviceAddr address,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device) {
    auto buffer =
        std::make_shared<Buffer>(device, size, page_size, type, sharding, bottom_up, sub_device, false, Private{});
    buffer->state_.address = address;
    buffer->state_.status = AllocationStatus::ALLOCATED;
    return buffer;
}

void Buffer::allocate_impl() { allocate(state_, *this); }
void Buffer::deallocate_impl() { tt::tt_metal::deallocate(state_, *this); }

void Buffer::deallocate() {
    if (state_.owns_data) {
        deallocate_impl();
    }
}

Buffer::~Buffer() { deallocate(); }

#else

std::atomic<std::size_t> BufferImpl::next_unique_id = 0;

BufferImpl::BufferImpl(
    IDevice* device,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device,
    bool owns_data) {
    fill(state, device, size, page_size, type, sharding, bottom_up, sub_device, owns_data, next_unique_id.fetch_add(1));
}

std::shared_ptr<Buffer> BufferImpl::create(
    IDevice* device,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device) {
    BufferImpl impl(device, size, page_size, type, sharding, bottom_up, sub_device, true);
    auto buffer = std::make_shared<Buffer>(std::move(impl));
    if (size == 0) {
        buffer->impl()->state.status = AllocationStatus::ALLOCATED;
    } else {
        buffer->impl()->allocate_impl(*buffer);
    }
    return buffer;
}

std::shared_ptr<Buffer> BufferImpl::create(
    IDevice* device,
    DeviceAddr address,
    DeviceAddr size,
    DeviceAddr page_size,
    BufferType type,
    const BufferShardingArgs& sharding,
    std::optional<bool> bottom_up,
    std::optional<SubDeviceId> sub_device) {
    BufferImpl impl(device, size, page_size, type, sharding, bottom_up, sub_device, false);
    impl.state.address = address;
    impl.state.status = AllocationStatus::ALLOCATED;
    return std::make_shared<Buffer>(std::move(impl));
}

void BufferImpl::allocate_impl(Buffer& buffer) { allocate(state, buffer); }
void BufferImpl::deallocate_impl(Buffer& buffer) { tt::tt_metal::deallocate(state, buffer); }

void BufferImpl::deallocate(Buffer& buffer) {
    if (state.owns_data) {
        deallocate_impl(buffer);
    }
}

Buffer::~Buffer() { impl_->deallocate(*this); }

#endif

}  // namespace tt::tt_metal
