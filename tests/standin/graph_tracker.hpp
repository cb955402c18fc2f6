// GraphTracker: entered for every allocation and free, whether anybody listens or not.
#pragma once

namespace tt::tt_metal {

class Buffer;

class GraphTracker {
public:
    static GraphTracker& instance();
    bool hook_allocate(const Buffer* buffer);
    bool hook_deallocate(Buffer* buffer);
    void track_allocate(const Buffer* buffer);
    void track_deallocate(Buffer* buffer);

    /// While on, this thread's allocations are taken over: nothing is allocated, as under a
    /// NO_DISPATCH graph capture.
    void set_no_dispatch(bool on);

private:
    GraphTracker() = default;
};

}  // namespace tt::tt_metal
