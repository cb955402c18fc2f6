// Programs and their circular and dataflow buffers.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "device.hpp"
#include "types.hpp"

namespace tt::tt_metal {

namespace detail {

class ProgramImpl {
public:
    /// What one range of cores has given to buffers.
    class CircularBufferAllocator {
    public:
        explicit CircularBufferAllocator(const CoreRange& cores) : core_range(cores) {}
        void mark_address(std::uint64_t address, std::uint64_t size, std::uint64_t base);

#ifdef TTMEM_STANDIN_INLINE
        std::uint64_t spacer = 0;
#endif
        CoreRange core_range;
        std::vector<std::pair<std::uint64_t, std::uint64_t>> l1_regions;
    };

    struct CircularBuffer {
        CoreRangeSet cores;
        std::uint64_t size = 0;
        /// Set: it lies over a tensor there.
        std::optional<std::uint64_t> global_address;
        std::uint64_t address = 0;
    };

    /// What one range of cores gave to a dataflow buffer.
    struct Mark {
        CoreRange cores;
        std::uint64_t address = 0;
        std::uint64_t size = 0;
    };

    ProgramImpl();
    ~ProgramImpl();
    void add_circular_buffer(CoreRangeSet cores, std::uint64_t size, std::optional<std::uint64_t> global_address);
    void add_dataflow_buffer(CoreRangeSet cores, std::uint64_t size);
    /// Makes the next allocation place everything anew.
    void resize(std::size_t circular_buffer, std::uint64_t size);
    void allocate_circular_buffers(const IDevice* device);
    void allocate_dataflow_buffers(const IDevice* device);
    void deallocate_circular_buffers();

    const std::vector<CircularBuffer>& circular_buffers() const { return circular_buffers_; }
    const std::vector<Mark>& marks() const { return marks_; }
    /// The chips that circular buffers, and dataflow buffers, have been placed on.
    const std::set<int>& circular_chips() const { return circular_chips_; }
    const std::set<int>& dataflow_chips() const { return dataflow_chips_; }
    std::uint64_t runtime_id() const { return runtime_id_; }

private:
    std::uint64_t place(std::vector<CircularBufferAllocator>& allocators, const CircularBuffer& buffer);

    std::uint64_t spacer_[5] = {};
    std::uint64_t runtime_id_;
    bool circular_needed_ = true;
    bool dataflow_needed_ = true;
    std::vector<CircularBuffer> circular_buffers_;
    std::vector<CircularBuffer> dataflow_buffers_;
    std::vector<CircularBufferAllocator> circular_allocators_;
    std::vector<CircularBufferAllocator> dataflow_allocators_;
    std::vector<Mark> marks_;
    std::set<const IDevice*> devices_;
    std::set<int> circular_chips_;
    std::set<int> dataflow_chips_;
};

}  // namespace detail

class Program {
public:
    Program();
    ~Program();
    std::uint64_t get_runtime_id() const;
    detail::ProgramImpl& impl() const { return *implementation_; }

private:
#ifdef TTMEM_STANDIN_INLINE
    std::uint64_t spacer_ = 0;
#endif
    std::shared_ptr<detail::ProgramImpl> implementation_;
};

/// Runs a program: its buffers are placed if they are not, then it is tracked.
void dispatch(Program& program, const IDevice* device);

}  // namespace tt::tt_metal
