// GraphTracker: entered for every allocation and free, whether anybody listens or not.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace tt::tt_metal {

class Buffer;
class IDevice;
class Program;

class GraphTracker {
public:
    static GraphTracker& instance();
    bool hook_allocate(const Buffer* buffer);
    bool hook_deallocate(Buffer* buffer);
    void track_allocate(const Buffer* buffer);
    void track_deallocate(Buffer* buffer);
    /// Once per circular buffer and chip; `size` is that on each core.
    void track_allocate_cb(
        const CoreRangeSet& cores, std::uint64_t address, std::uint64_t size, bool globally_allocated, const IDevice* device);
    void track_deallocate_cb(const IDevice* device);
    void track_program(Program* program, const IDevice* device);

    /// While on, this thread's allocations are taken over: nothing is allocated, as under a
    /// NO_DISPATCH graph capture.
    void set_no_dispatch(bool on);

private:
    GraphTracker() = default;
};

}  // namespace tt::tt_metal
