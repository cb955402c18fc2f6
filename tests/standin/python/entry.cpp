// What a program that knows only C can ask the stand-in for, such as Python by ctypes: one mesh, and
// small buffers on it. No exception comes out.
#include <map>
#include <mutex>
#include <thread>

#include "../device.hpp"

namespace {

using tt::tt_metal::Arch;
using tt::tt_metal::Buffer;
using tt::tt_metal::BufferFactory;
using tt::tt_metal::BufferType;
using tt::tt_metal::Device;
using tt::tt_metal::distributed::MeshDevice;

constexpr std::uint64_t kSize = 2048;

/// Several threads may ask at once: ctypes can let go of the interpreter's lock.
struct Opened {
    std::mutex mutex;
    std::shared_ptr<MeshDevice> mesh;
    std::map<std::uint64_t, std::shared_ptr<Buffer>> buffers;
};

Opened& opened() {
    static Opened one;
    return one;
}

/// What it returns; 0 if there was an exception.
std::uint64_t caught(const auto& work) noexcept {
    try {
        return work();
    } catch (...) {
        return 0;
    }
}

}  // namespace

extern "C" {

/// Opens a mesh of two chips; 1, or 0.
std::uint64_t standin_open() noexcept {
    return caught([]() -> std::uint64_t {
        const std::lock_guard lock(opened().mutex);
        opened().mesh = std::make_shared<MeshDevice>(std::vector{
            std::make_shared<Device>(0, Arch::WORMHOLE), std::make_shared<Device>(1, Arch::WORMHOLE)});
        return 1;
    });
}

/// The address of one more buffer; 0: there is none.
std::uint64_t standin_allocate() noexcept {
    return caught([]() -> std::uint64_t {
        const std::lock_guard lock(opened().mutex);
        auto buffer = BufferFactory::create(
            opened().mesh.get(), kSize, kSize, BufferType::DRAM, {}, std::nullopt, std::nullopt);
        const std::uint64_t address = buffer->address();
        opened().buffers.emplace(address, std::move(buffer));
        return address;
    });
}

/// The same by a thread of which only the system knows.
std::uint64_t standin_allocate_in_thread() noexcept {
    return caught([]() -> std::uint64_t {
        std::uint64_t address = 0;
        std::thread([&] { address = standin_allocate(); }).join();
        return address;
    });
}

/// Calls back at once.
void standin_call(void (*call)()) { call(); }

/// Calls back from such a thread; 1, or 0.
std::uint64_t standin_call_in_thread(void (*call)()) noexcept {
    return caught([&]() -> std::uint64_t {
        std::thread(call).join();
        return 1;
    });
}

/// Gives a buffer back; 1, or 0.
std::uint64_t standin_free(std::uint64_t address) noexcept {
    return caught([&]() -> std::uint64_t {
        const std::lock_guard lock(opened().mutex);
        return opened().buffers.erase(address);
    });
}

/// Closes the mesh; 1, or 0.
std::uint64_t standin_close() noexcept {
    return caught([]() -> std::uint64_t {
        const std::lock_guard lock(opened().mutex);
        return opened().mesh->close() ? 1 : 0;
    });
}

}  // extern "C"
