#include "program.hpp"

#include <algorithm>
#include <atomic>

#include "graph_tracker.hpp"

namespace tt::tt_metal {
namespace {

/// Where a core's L1 begins for buffers, on a Wormhole.
constexpr std::uint64_t kBase = 105824;

std::atomic<std::uint64_t> next_runtime_id = 1;

std::vector<const IDevice*> chips_of(const IDevice* device) {
    if (const auto* mesh = dynamic_cast<const distributed::MeshDevice*>(device)) {
        const auto devices = mesh->get_devices();
        return {devices.begin(), devices.end()};
    }
    return {device};
}

bool same(const CoreRange& a, const CoreRange& b) {
    return a.start.x == b.start.x && a.start.y == b.start.y && a.end.x == b.end.x && a.end.y == b.end.y;
}

}  // namespace

namespace detail {

ProgramImpl::ProgramImpl() : runtime_id_(next_runtime_id.fetch_add(1)) {}

ProgramImpl::~ProgramImpl() { deallocate_circular_buffers(); }

void ProgramImpl::add_circular_buffer(
    CoreRangeSet cores, std::uint64_t size, std::optional<std::uint64_t> global_address) {
    for (const CoreRange& range : cores.ranges()) {
        circular_allocators_.emplace_back(range);
    }
    circular_buffers_.push_back({std::move(cores), size, global_address, 0});
    circular_needed_ = true;
}

void ProgramImpl::add_dataflow_buffer(CoreRangeSet cores, std::uint64_t size) {
    for (const CoreRange& range : cores.ranges()) {
        const auto is_it = [&](const CircularBufferAllocator& allocator) { return same(allocator.core_range, range); };
        if (std::none_of(dataflow_allocators_.begin(), dataflow_allocators_.end(), is_it)) {
            dataflow_allocators_.emplace_back(range);
        }
    }
    dataflow_buffers_.push_back({std::move(cores), size, std::nullopt, 0});
    dataflow_needed_ = true;
}

void ProgramImpl::resize(std::size_t circular_buffer, std::uint64_t size) {
    circular_buffers_.at(circular_buffer).size = size;
    for (CircularBufferAllocator& allocator : circular_allocators_) {
        allocator.l1_regions.clear();
    }
    circular_needed_ = true;
}

/// The lowest address above all that its cores have given.
std::uint64_t ProgramImpl::place(std::vector<CircularBufferAllocator>& allocators, const CircularBuffer& buffer) {
    std::uint64_t address = kBase;
    for (const CoreRange& range : buffer.cores.ranges()) {
        for (const CircularBufferAllocator& allocator : allocators) {
            if (!allocator.l1_regions.empty() && allocator.core_range.intersects(range)) {
                address = std::max(address, allocator.l1_regions.back().second);
            }
        }
    }
    return address;
}

void ProgramImpl::allocate_circular_buffers(const IDevice* device) {
    const auto chips = chips_of(device);
    auto& tracker = GraphTracker::instance();
    for (const IDevice* chip : chips) {
        const bool is_new = devices_.insert(chip).second;
        circular_chips_.insert(chip->id());
        if (circular_needed_ || !is_new) {
            continue;
        }
        for (const CircularBuffer& buffer : circular_buffers_) {
            if (!buffer.global_address) {
                tracker.track_allocate_cb(buffer.cores, buffer.address, buffer.size, false, chip);
            }
        }
    }
    if (!circular_needed_) {
        return;
    }
    for (CircularBuffer& buffer : circular_buffers_) {
        if (buffer.global_address) {
            buffer.address = *buffer.global_address;
        } else {
            buffer.address = place(circular_allocators_, buffer);
            for (const CoreRange& range : buffer.cores.ranges()) {
                for (CircularBufferAllocator& allocator : circular_allocators_) {
                    const bool below = allocator.l1_regions.empty() || allocator.l1_regions.back().second <= buffer.address;
                    if (allocator.core_range.intersects(range) && (same(allocator.core_range, range) || below)) {
                        allocator.mark_address(buffer.address, buffer.size, kBase);
                    }
                }
            }
        }
        for (const IDevice* chip : chips) {
            tracker.track_allocate_cb(buffer.cores, buffer.address, buffer.size, buffer.global_address.has_value(), chip);
        }
    }
    circular_needed_ = false;
}

void ProgramImpl::allocate_dataflow_buffers(const IDevice* device) {
    if (!dataflow_needed_) {
        return;
    }
    for (const IDevice* chip : chips_of(device)) {
        dataflow_chips_.insert(chip->id());
    }
    marks_.clear();
    for (CircularBufferAllocator& allocator : dataflow_allocators_) {
        allocator.l1_regions.clear();
    }
    for (CircularBuffer& buffer : dataflow_buffers_) {
        buffer.address = place(dataflow_allocators_, buffer);
        for (const CoreRange& range : buffer.cores.ranges()) {
            for (CircularBufferAllocator& allocator : dataflow_allocators_) {
                if (!allocator.core_range.intersects(range)) {
                    continue;
                }
                if (same(allocator.core_range, range) || allocator.l1_regions.empty() ||
                    allocator.l1_regions.back().second <= buffer.address) {
                    allocator.mark_address(buffer.address, buffer.size, kBase);
                    marks_.push_back({allocator.core_range, buffer.address, buffer.size});
                }
            }
        }
    }
    dataflow_needed_ = false;
}

void ProgramImpl::deallocate_circular_buffers() {
    for (const IDevice* chip : devices_) {
        GraphTracker::instance().track_deallocate_cb(chip);
    }
    devices_.clear();
}

void ProgramImpl::CircularBufferAllocator::mark_address(
    std::uint64_t address, std::uint64_t size, std::uint64_t base) {
    if (l1_regions.empty()) {
        l1_regions.emplace_back(base, base);
    }
    if (l1_regions.back().second == address) {
        l1_regions.back().second = address + size;
    } else {
        l1_regions.emplace_back(address, address + size);
    }
}

}  // namespace detail

Program::Program() : implementation_(std::make_shared<detail::ProgramImpl>()) {}
Program::~Program() = default;

std::uint64_t Program::get_runtime_id() const { return implementation_->runtime_id(); }

void dispatch(Program& program, const IDevice* device) {
    program.impl().allocate_circular_buffers(device);
    program.impl().allocate_dataflow_buffers(device);
    GraphTracker::instance().track_program(&program, device);
}

}  // namespace tt::tt_metal
