// The load on the stand-in library: a mesh of its own for each thread, so that threads only meet in the probes.
#include <cstdio>

#include "../../standin/buffer.hpp"
#include "../../standin/device.hpp"
#include "load.hpp"

using namespace tt::tt_metal;

int main() {
    void* library = dlopen("libtt_metal.so", RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    std::vector<std::shared_ptr<distributed::MeshDevice>> meshes;
    for (int chip = 0; chip < 2; ++chip) {
        std::vector<std::shared_ptr<Device>> chips{std::make_shared<Device>(chip, Arch::WORMHOLE)};
        meshes.push_back(std::make_shared<distributed::MeshDevice>(std::move(chips)));
    }
    const BufferShardingArgs interleaved;
    const auto allocate = [&](std::uint64_t thread) -> bench::Buffer {
        return BufferFactory::create(meshes[thread % meshes.size()].get(), 4096, 2048, BufferType::DRAM, interleaved, std::nullopt, std::nullopt);
    };
    const int code = bench::serve(allocate, bench::Sites(library));
    // A program that ends does not free its buffers one by one.
    std::fflush(stdout);
    ::_exit(code);
}
