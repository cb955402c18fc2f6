// What the driver has opened and allocated, under the names that the script uses.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../device.hpp"

namespace standin {

using tt::tt_metal::Arch;
using tt::tt_metal::Buffer;
using tt::tt_metal::BufferShardingArgs;
using tt::tt_metal::BufferType;
using tt::tt_metal::Device;
using tt::tt_metal::IDevice;
using tt::tt_metal::distributed::MeshDevice;

using SubDevice = std::optional<tt::tt_metal::SubDeviceId>;

/// An error in the script: answered by `error …`, the driver goes on.
struct ScriptError {
    std::string what;
};

struct OpenDevice {
    std::string name;
    std::shared_ptr<IDevice> device;
    std::shared_ptr<MeshDevice> mesh;  // empty for a single chip
    std::vector<int> chips;
};

/// A buffer and what keeps its allocator alive, in the order in which they must not be destroyed.
struct NamedBuffer {
    std::shared_ptr<IDevice> device;
    std::shared_ptr<Buffer> buffer;
};

class Session {
public:
    const OpenDevice& open_mesh(std::string name, int first_chip, int chips, Arch arch);
    const OpenDevice& open_device(std::string name, int chip, Arch arch);
    const OpenDevice& open_submesh(std::string name, const std::string& parent, std::size_t first, std::size_t count);
    const OpenDevice& device(const std::string& name) const;
    const std::vector<OpenDevice>& devices() const { return devices_; }
    void close(const std::string& name);

    Buffer& allocate(
        const std::string& name,
        const OpenDevice& device,
        BufferType type,
        std::uint64_t size,
        std::uint64_t page_size,
        const BufferShardingArgs& sharding,
        SubDevice sub_device = std::nullopt);
    /// A buffer at an address that somebody else owns.
    Buffer& place(
        const std::string& name,
        const OpenDevice& device,
        BufferType type,
        std::uint64_t size,
        std::uint64_t page_size,
        std::uint64_t address);
    void free(const std::string& name);
    /// Frees a buffer in a thread of its own, which stops right after the allocator was entered.
    void park(const std::string& name);
    /// Lets it go on, and waits for its end.
    void unpark();
    /// Buffers without a name, until `release`.
    void keep(NamedBuffer buffer) { kept_.push_back(std::move(buffer)); }
    std::size_t release();

private:
    const OpenDevice& add(std::string name, OpenDevice opened);

    std::vector<OpenDevice> devices_;
    std::map<std::string, NamedBuffer> buffers_;
    std::vector<NamedBuffer> kept_;
    int opened_ = 0;
    std::thread parked_;
};

/// One allocation on that device; throws when out of memory.
NamedBuffer allocate(
    const OpenDevice& device,
    BufferType type,
    std::uint64_t size,
    std::uint64_t page_size,
    const BufferShardingArgs& sharding = {},
    SubDevice sub_device = std::nullopt);

}  // namespace standin
