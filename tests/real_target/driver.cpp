// Drives the libtt_metal.so of a wheel without Python, headers or hardware, for machines that have
// no Python which there are wheels for.
//
//   driver LIBRARY [--seconds N] [--pause-ms N] [--checkpoints] [--devices N]
//
// It opens devices, says `ready`, and runs a small endless model-like workload: buffers in DRAM and
// L1 that come and go, and a cache that grows and is dropped. It ends cleanly with its standard
// input, on SIGTERM, on SIGINT, or after --seconds. With --checkpoints it stops after every step,
// writes the live buffers as one JSON line, and waits for a line on standard input.
//
// Entry points are looked up by their mangled names in ttnn 0.81.1. Objects of the library's own
// classes are opaque blocks; only types whose layout the C++ ABI fixes cross the border.
#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <exception>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace {

volatile std::sig_atomic_t end_requested = 0;

// Larger than any class of the library that is made here.
struct alignas(16) Opaque {
    unsigned char bytes[1024] = {};
};

// std::optional<bool> and std::optional<SubDeviceId>, both empty here.
struct EmptyOptional {
    bool value = false;
    bool has_value = false;
};

using Shared = std::shared_ptr<void>;
using CreateUnitMesh = Shared (*)(int device, std::size_t l1_small, std::size_t trace, std::size_t queues,
                                  const Opaque& dispatch, std::span<const std::uint32_t> remap, std::size_t l1);
using CreateBuffer = Shared (*)(void* device, std::uint64_t size, std::uint64_t page, int type,
                                const Opaque& sharding, EmptyOptional bottom_up, EmptyOptional sub_device);

enum BufferType : int { kDram = 0, kL1 = 1 };

class Library {
public:
    explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_GLOBAL)) {
        if (handle_ == nullptr) {
            std::fprintf(stderr, "cannot load %s: %s\n", path, dlerror());
            std::exit(1);
        }
        find(create_unit_mesh,
             "_ZN2tt8tt_metal11distributed10MeshDevice16create_unit_meshEimmmRKNS0_18DispatchCoreConfigESt4spanIKj"
             "Lm18446744073709551615EEm");
        find(create_buffer,
             "_ZN2tt8tt_metal10BufferImpl6createEPNS0_7IDeviceEmmNS0_10BufferTypeERKNS0_18BufferShardingArgsESt8opt"
             "ionalIbES8_IN4ttsl10StrongTypeIhNS0_14SubDeviceIdTagEEEE");
        find(construct_sharding, "_ZN2tt8tt_metal18BufferShardingArgsC1Ev");
        find(address, "_ZNK2tt8tt_metal6Buffer7addressEv");
        find(close, "_ZN2tt8tt_metal11distributed10MeshDevice5closeEv");
        find(mesh_id, "_ZNK2tt8tt_metal11distributed10MeshDevice2idEv");
        find(device_count, "_ZN2tt8tt_metal22GetNumAvailableDevicesEv");
    }

    CreateUnitMesh create_unit_mesh = nullptr;
    CreateBuffer create_buffer = nullptr;
    void (*construct_sharding)(Opaque*) = nullptr;
    std::uint32_t (*address)(void*) = nullptr;
    bool (*close)(void*) = nullptr;
    int (*mesh_id)(void*) = nullptr;
    std::size_t (*device_count)() = nullptr;

private:
    template <class Function>
    void find(Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(handle_, name));
        if (function == nullptr) {
            std::fprintf(stderr, "the library has no %s: is it that of ttnn 0.81.1?\n", name);
            std::exit(1);
        }
    }

    void* handle_;
};

struct Options {
    const char* library = nullptr;
    long seconds = 0;
    int pause_ms = 50;
    std::size_t devices = 2;
    bool checkpoints = false;
};

struct Buffer {
    Shared owner;
    std::uint64_t size;
    int type;
};

// One device, the buffers on it, and the steps of the workload.
class Workload {
public:
    Workload(Library& library, int device) : library_(library), random_(static_cast<unsigned>(device)) {
        Opaque dispatch;
        mesh_ = library.create_unit_mesh(device, 32 << 10, 1 << 20, 1, dispatch, {}, 0);
        library.construct_sharding(&sharding_);
        for (std::uint64_t size : {512u << 10, 512u << 10, 2048u << 10, 2048u << 10}) {
            weights_.push_back(allocate(size, kDram));
        }
    }

    // Activations live for two steps; the cache grows until it is dropped as a whole.
    void step() {
        for (int count = 0; count < 4; count++) {
            activations_.push_back(allocate(2048 * (1 + random_() % 32), kL1));
        }
        while (activations_.size() > 8) {
            activations_.pop_front();
        }
        cache_.push_back(allocate(65536 * (1 + random_() % 16), kDram));
        if (cache_.size() > 100) {
            cache_.clear();
        }
    }

    void show(std::string& json) const {
        for (const auto* list : {&weights_, &activations_, &cache_}) {
            for (const Buffer& buffer : *list) {
                char text[160];
                std::snprintf(text, sizeof text, R"(%s{"mesh":%d,"address":%u,"type":"%s","size":%llu})",
                              json.ends_with('[') ? "" : ",", library_.mesh_id(mesh_.get()),
                              library_.address(buffer.owner.get()), buffer.type == kDram ? "DRAM" : "L1",
                              static_cast<unsigned long long>(buffer.size));
                json += text;
            }
        }
    }

    void close() {
        activations_.clear();
        cache_.clear();
        weights_.clear();
        library_.close(mesh_.get());
    }

private:
    Buffer allocate(std::uint64_t size, int type) {
        return {library_.create_buffer(mesh_.get(), size, 2048, type, sharding_, {}, {}), size, type};
    }

    Library& library_;
    std::minstd_rand random_;
    Shared mesh_;
    Opaque sharding_;
    std::deque<Buffer> weights_, activations_, cache_;
};

Options parse(int argc, char** argv) {
    Options options;
    for (int at = 1; at < argc; at++) {
        const std::string word = argv[at];
        const char* value = at + 1 < argc ? argv[at + 1] : "0";
        if (word == "--seconds") {
            options.seconds = std::atol(value), at++;
        } else if (word == "--pause-ms") {
            options.pause_ms = std::atoi(value), at++;
        } else if (word == "--devices") {
            options.devices = static_cast<std::size_t>(std::atol(value)), at++;
        } else if (word == "--checkpoints") {
            options.checkpoints = true;
        } else {
            options.library = argv[at];
        }
    }
    if (options.library == nullptr) {
        std::fprintf(stderr, "usage: driver LIBRARY [--seconds N] [--pause-ms N] [--checkpoints] [--devices N]\n");
        std::exit(2);
    }
    return options;
}

// Waits for that long; false when the standard input has ended.
bool pause_or_end(int milliseconds) {
    pollfd input{0, POLLIN, 0};
    if (poll(&input, 1, milliseconds) <= 0) {
        return true;
    }
    char ignored[256];
    return read(0, ignored, sizeof ignored) > 0;
}

void checkpoint(const std::vector<std::unique_ptr<Workload>>& workloads, long step) {
    std::string json = R"({"checkpoint":"step/)" + std::to_string(step) + R"(","buffers":[)";
    for (const auto& workload : workloads) {
        workload->show(json);
    }
    std::puts((json + "]}").c_str());
    std::fflush(stdout);
}

int run(const Options& options) {
    Library library(options.library);
    std::vector<std::unique_ptr<Workload>> workloads;
    for (std::size_t device = 0; device < std::min(options.devices, library.device_count()); device++) {
        workloads.push_back(std::make_unique<Workload>(library, static_cast<int>(device)));
    }
    std::puts("ready");
    std::fflush(stdout);
    const std::time_t start = std::time(nullptr);
    for (long step = 0; end_requested == 0; step++) {
        for (const auto& workload : workloads) {
            workload->step();
        }
        if (options.checkpoints) {
            checkpoint(workloads, step);
        }
        if (!pause_or_end(options.checkpoints ? -1 : options.pause_ms)) {
            break;
        }
        if (options.seconds > 0 && std::time(nullptr) - start >= options.seconds) {
            break;
        }
    }
    for (auto& workload : workloads) {
        workload->close();
        // Left to the end of the process: a mesh's destructor would close it once more, and say so.
        (void)workload.release();
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    for (int number : {SIGTERM, SIGINT}) {
        std::signal(number, [](int) { end_requested = 1; });
    }
    int code = 1;
    try {
        code = run(options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%.600s\n", error.what());
    }
    std::fflush(stdout);
    // The library's destructors at exit expect a state that only its own front ends leave.
    _exit(code);
}
