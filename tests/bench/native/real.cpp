// real LIBRARY [DEVICES]: the load on the libtt_metal.so of a wheel, a unit mesh per mock device, in turns.
//
// As in tests/real_target/driver.cpp: entry points by their mangled names in ttnn 0.81.1, objects of the library's
// classes as opaque blocks.
#include <unistd.h>

#include <span>

#include "load.hpp"

namespace {

struct alignas(16) Opaque {
    unsigned char bytes[1024] = {};
};

struct EmptyOptional {
    bool value = false;
    bool has_value = false;
};

using CreateUnitMesh = bench::Buffer (*)(int, std::size_t, std::size_t, std::size_t, const Opaque&,
                                         std::span<const std::uint32_t>, std::size_t);
using CreateBuffer = bench::Buffer (*)(void*, std::uint64_t, std::uint64_t, int, const Opaque&, EmptyOptional,
                                       EmptyOptional);

template <class Function>
Function find(void* library, const char* name) {
    void* found = dlsym(library, name);
    if (found == nullptr) {
        std::fprintf(stderr, "the library has no %s: is it that of ttnn 0.81.1?\n", name);
        _exit(1);
    }
    return reinterpret_cast<Function>(found);
}

}  // namespace

int main(int argc, char** argv) {
    void* library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : nullptr;
    if (library == nullptr) {
        std::fprintf(stderr, "usage: real LIBRARY [DEVICES]; %s\n", argc > 1 ? dlerror() : "no library");
        return 2;
    }
    const auto create_mesh = find<CreateUnitMesh>(
        library,
        "_ZN2tt8tt_metal11distributed10MeshDevice16create_unit_meshEimmmRKNS0_18DispatchCoreConfigESt4spanIKj"
        "Lm18446744073709551615EEm");
    const auto create_buffer = find<CreateBuffer>(
        library,
        "_ZN2tt8tt_metal10BufferImpl6createEPNS0_7IDeviceEmmNS0_10BufferTypeERKNS0_18BufferShardingArgsESt8opt"
        "ionalIbES8_IN4ttsl10StrongTypeIhNS0_14SubDeviceIdTagEEEE");
    const auto construct_sharding = find<void (*)(Opaque*)>(library, "_ZN2tt8tt_metal18BufferShardingArgsC1Ev");
    const auto device_count = find<std::size_t (*)()>(library, "_ZN2tt8tt_metal22GetNumAvailableDevicesEv");

    const std::size_t wanted = argc > 2 ? std::stoul(argv[2]) : 1;
    const Opaque dispatch;
    Opaque interleaved;
    construct_sharding(&interleaved);
    std::vector<bench::Buffer> meshes;
    for (std::size_t device = 0; device < std::min(wanted, device_count()); ++device) {
        meshes.push_back(create_mesh(static_cast<int>(device), 0, 0, 1, dispatch, {}, 0));
    }
    std::size_t turn = 0;
    const auto allocate = [&](std::uint64_t) {
        return create_buffer(meshes[turn++ % meshes.size()].get(), 4096, 2048, 0, interleaved, {}, {});
    };
    const int code = bench::serve(allocate, bench::Sites(library));
    std::fflush(stdout);
    // The library's destructors at exit expect a state that only its own front ends leave.
    _exit(code);
}
