#include "session.hpp"

#include <algorithm>

namespace standin {

const OpenDevice& Session::add(std::string name, OpenDevice opened) {
    const auto same = [&](const OpenDevice& other) { return other.name == name; };
    if (std::any_of(devices_.begin(), devices_.end(), same)) {
        throw ScriptError{"the name " + name + " is taken"};
    }
    opened.name = std::move(name);
    ++opened_;
    return devices_.emplace_back(std::move(opened));
}

const OpenDevice& Session::open_mesh(std::string name, int first_chip, int chips, Arch arch) {
    if (chips < 1) {
        throw ScriptError{"a mesh needs a chip"};
    }
    std::vector<std::shared_ptr<Device>> members;
    for (int chip = 0; chip < chips; ++chip) {
        members.push_back(std::make_shared<Device>(first_chip + chip, arch));
    }
    auto mesh = std::make_shared<MeshDevice>(std::move(members));
    if (name.empty()) {
        name = "mesh" + std::to_string(opened_);
    }
    return add(std::move(name), {"", mesh, mesh, mesh->get_device_ids()});
}

const OpenDevice& Session::open_device(std::string name, int chip, Arch arch) {
    if (name.empty()) {
        name = "device" + std::to_string(opened_);
    }
    return add(std::move(name), {"", std::make_shared<Device>(chip, arch), nullptr, {chip}});
}

const OpenDevice& Session::open_submesh(
    std::string name, const std::string& parent, std::size_t first, std::size_t count) {
    const OpenDevice& owner = device(parent);
    if (owner.mesh == nullptr) {
        throw ScriptError{parent + " is not a mesh"};
    }
    auto mesh = owner.mesh->create_submesh(first, count);
    if (name.empty()) {
        name = "submesh" + std::to_string(opened_);
    }
    return add(std::move(name), {"", mesh, mesh, mesh->get_device_ids()});
}

const OpenDevice& Session::device(const std::string& name) const {
    for (const OpenDevice& device : devices_) {
        if (device.name == name) {
            return device;
        }
    }
    throw ScriptError{"no open device " + name};
}

void Session::close(const std::string& name) {
    device(name).device->close();
    // Buffers that are left keep the object alive, as user code does.
    devices_.erase(std::find_if(devices_.begin(), devices_.end(), [&](const auto& d) { return d.name == name; }));
}

Buffer& Session::allocate(
    const std::string& name,
    const OpenDevice& device,
    BufferType type,
    std::uint64_t size,
    std::uint64_t page_size,
    const BufferShardingArgs& sharding,
    SubDevice sub_device) {
    if (buffers_.count(name) != 0) {
        throw ScriptError{"the name " + name + " is taken"};
    }
    NamedBuffer buffer = standin::allocate(device, type, size, page_size, sharding, sub_device);
    return *buffers_.emplace(name, std::move(buffer)).first->second.buffer;
}

Buffer& Session::place(
    const std::string& name,
    const OpenDevice& device,
    BufferType type,
    std::uint64_t size,
    std::uint64_t page_size,
    std::uint64_t address) {
    if (buffers_.count(name) != 0) {
        throw ScriptError{"the name " + name + " is taken"};
    }
    auto buffer = tt::tt_metal::BufferFactory::create(
        device.device.get(), address, size, page_size, type, {}, std::nullopt, std::nullopt);
    return *buffers_.emplace(name, NamedBuffer{device.device, std::move(buffer)}).first->second.buffer;
}

void Session::free(const std::string& name) {
    if (buffers_.erase(name) == 0) {
        throw ScriptError{"no buffer " + name};
    }
}

void Session::park(const std::string& name) {
    const auto found = buffers_.find(name);
    if (found == buffers_.end() || parked_.joinable()) {
        throw ScriptError{"no buffer " + name + ", or another free is parked"};
    }
    NamedBuffer buffer = std::move(found->second);
    buffers_.erase(found);
    tt::tt_metal::AllocatorImpl::park_frees(true);
    parked_ = std::thread([buffer = std::move(buffer)]() mutable { buffer.buffer.reset(); });
    tt::tt_metal::AllocatorImpl::wait_for_parked_free();
}

void Session::unpark() {
    if (!parked_.joinable()) {
        throw ScriptError{"no free is parked"};
    }
    tt::tt_metal::AllocatorImpl::park_frees(false);
    parked_.join();
}

std::size_t Session::release() {
    const std::size_t count = kept_.size();
    // In the order of allocation.
    for (NamedBuffer& buffer : kept_) {
        buffer.buffer.reset();
    }
    kept_.clear();
    return count;
}

NamedBuffer allocate(
    const OpenDevice& device,
    BufferType type,
    std::uint64_t size,
    std::uint64_t page_size,
    const BufferShardingArgs& sharding,
    SubDevice sub_device) {
    if (page_size == 0) {
        throw ScriptError{"the page size must not be 0"};
    }
    if (size % page_size != 0) {
        throw ScriptError{"the size must be a multiple of the page size"};
    }
    auto buffer = tt::tt_metal::BufferFactory::create(
        device.device.get(), size, page_size, type, sharding, std::nullopt, sub_device);
    return {device.device, std::move(buffer)};
}

}  // namespace standin
