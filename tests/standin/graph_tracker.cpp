#include "graph_tracker.hpp"

#include <vector>

namespace tt::tt_metal {
namespace {

struct Processor {
    virtual ~Processor() = default;
    virtual void track_allocate(const Buffer* buffer) = 0;
    virtual void track_deallocate(Buffer* buffer) = 0;
    virtual void track_allocate_cb(const CoreRangeSet&, std::uint64_t, std::uint64_t, bool, const IDevice*) = 0;
    virtual void track_deallocate_cb(const IDevice* device) = 0;
    virtual void track_program(Program* program, const IDevice* device) = 0;
};

// Nothing is ever added: the real functions return early too when no capture runs.
thread_local std::vector<Processor*> processors;
thread_local bool no_dispatch = false;

}  // namespace

GraphTracker& GraphTracker::instance() {
    static GraphTracker tracker;
    return tracker;
}

bool GraphTracker::hook_allocate(const Buffer*) { return no_dispatch; }
bool GraphTracker::hook_deallocate(Buffer*) { return false; }

void GraphTracker::track_allocate(const Buffer* buffer) {
    for (Processor* processor : processors) {
        processor->track_allocate(buffer);
    }
}

void GraphTracker::track_deallocate(Buffer* buffer) {
    for (Processor* processor : processors) {
        processor->track_deallocate(buffer);
    }
}

void GraphTracker::track_allocate_cb(
    const CoreRangeSet& cores, std::uint64_t address, std::uint64_t size, bool globally_allocated, const IDevice* device) {
    for (Processor* processor : processors) {
        processor->track_allocate_cb(cores, address, size, globally_allocated, device);
    }
}

void GraphTracker::track_deallocate_cb(const IDevice* device) {
    for (Processor* processor : processors) {
        processor->track_deallocate_cb(device);
    }
}

void GraphTracker::track_program(Program* program, const IDevice* device) {
    for (Processor* processor : processors) {
        processor->track_program(program, device);
    }
}

void GraphTracker::set_no_dispatch(bool on) { no_dispatch = on; }

}  // namespace tt::tt_metal
