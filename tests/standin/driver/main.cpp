// ttmem-standin-driver: does to the stand-in library what the script on standard input says, and
// answers every command with one line.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <thread>

#include "../graph_tracker.hpp"
#include "loads.hpp"
#include "programs.hpp"
#include "scribble.hpp"
#include "sub_devices.hpp"
#include "truth.hpp"
#include "words.hpp"

namespace standin {
namespace {

constexpr const char* kHelp =
    "usage: ttmem-standin-driver < SCRIPT\n"
    "\n"
    "Prints `ready pid=N`, then one line per command: `ok …`, `caught …` or `error …`.\n"
    "  open mesh FIRST COUNT [arch=wormhole|blackhole] [name=NAME]   a mesh of chips FIRST…\n"
    "  open device CHIP [arch=…] [name=NAME]                         one chip\n"
    "  submesh PARENT OFFSET COUNT [name=NAME]                       its own allocator, same chips\n"
    "  alloc NAME DEV TYPE SIZE PAGE [SHARDING]                      TYPE: DRAM L1 SYSTEM_MEMORY L1_SMALL TRACE\n"
    "      SHARDING: cores=N shard=HxW page=HxW | dist=SHARDS,CORES,PAGES | both; layout=height|width|block|nd\n"
    "  place NAME DEV TYPE SIZE PAGE ADDRESS   a buffer on memory that somebody else owns\n"
    "      sub=N: on a sub-device of the manager that is loaded\n"
    "  free NAME            free a buffer\n"
    "  park NAME | unpark   a free that stops inside the allocator, before anything has changed; it goes on\n"
    "  bulk DEV             deallocate_buffers(): all blocks gone, later frees still come\n"
    "  close DEV            the same, and later frees come no more\n"
    "  oom DEV TYPE         an allocation that cannot succeed\n"
    "  hooked DEV           an allocation that a hook takes over\n"
    "  wild                 the tracker is told of a buffer that is none\n"
    "  churn THREADS PAIRS SEED [keep=K] [small=TYPE]   random load; K buffers per thread stay\n"
    "  stir THREADS SEED [keep=K]          the same until another line comes, which is not looked at\n"
    "  storm N | hold N     N live buffers, then freed | kept\n"
    "  release              free what churn and hold have kept\n"
    "  rate PER_SECOND SECONDS             paced load\n"
    "  fork [K]             a child allocates and frees K buffers (default 10) and exits\n"
    "  exec [PATH]          replace this program (default: by itself); the script goes on there\n"
    "  throw N              N exceptions through allocate_buffer, all caught\n"
    "  program NAME                        a program; cb/dfb PROGRAM SIZE CORES [alias=ADDRESS] gives it a buffer\n"
    "      CORES: 0,0-7,6;2,2-2,2          resize PROGRAM INDEX SIZE places its circular buffers anew\n"
    "  dispatch PROGRAM DEV [TIMES]        places its buffers if need be; end PROGRAM\n"
    "  programs N DEV SEED | programs      N random programs, dispatched | what all keep, as JSON\n"
    "  subdevices DEV L1_BYTES CORES…      a manager of sub-devices, with an allocator each\n"
    "  load DEV MANAGER | unload DEV | remove DEV MANAGER\n"
    "  state | live         the allocators' own tables as JSON\n"
    "  scribble SEED WORDS [still=1]       nonsense over its own heap, until it is killed\n"
    "  pid | sleep MS | crash | quit [CODE]\n";

class Driver {
public:
    /// The answer; nothing for `quit`, whose code is then in `exit_code`.
    std::optional<std::string> run(Words& words);
    int exit_code = 0;

private:
    std::string open(Words& words);
    std::string submesh(Words& words);
    std::string alloc(Words& words);
    std::string place(Words& words);
    std::string free_buffer(Words& words);
    std::string park(Words& words, bool on);
    std::string close(Words& words, bool bulk);
    std::string oom(Words& words);
    std::string shrink(Words& words);
    std::string hooked(Words& words);
    std::string wild(Words& words);
    std::string churn_load(Words& words);
    std::string stir(Words& words);
    std::string storm_load(Words& words, bool hold);
    std::string rate(Words& words);
    std::string fork_child(Words& words);
    std::string exec(Words& words);
    std::string throw_many(Words& words);
    const OpenDevice& first_device() const;

    Session session_;
    Programs programs_;
};

std::string answer(const OpenDevice& opened) {
    return "ok name=" + opened.name + " id=" + std::to_string(opened.device->id()) + " chips=" + list(opened.chips) +
           " host=" + hex(opened.device.get()) + " allocator=" + hex(opened.device->allocator_impl().get());
}

std::string listed(const auto& numbers) {
    std::string text;
    for (const std::uint64_t number : numbers) {
        text += (text.empty() ? "" : ",") + std::to_string(number);
    }
    return text;
}

std::string answer(const Counts& counts) {
    return "ok allocations=" + std::to_string(counts.allocations) + " frees=" + std::to_string(counts.frees) +
           " failed=" + std::to_string(counts.failed) + " kept=" + std::to_string(counts.kept) +
           " of_type=" + listed(counts.of_type) + " bytes=" + listed(counts.bytes_of_type) +
           " seconds=" + std::to_string(counts.seconds);
}

/// The block that the buffer's allocator gave it: more than `aligned_size_per_bank()` asks for.
std::uint64_t taken_of_a_bank(const Buffer& buffer) {
    for (const auto& truth : buffer.state().allocator->live_truth()) {
        if (truth.buffer == &buffer) {
            return truth.bank_bytes;
        }
    }
    return 0;
}

std::string answer(const Buffer& buffer, std::uint64_t bank_bytes) {
    std::string text = "ok address=" + hex(buffer.address()) + " bank_bytes=" + std::to_string(bank_bytes);
#ifdef TTMEM_STANDIN_INLINE
    text += " uid=null";
#else
    text += " uid=" + std::to_string(buffer.unique_id());
#endif
    return text + " host=" + hex(&buffer);
}

Arch arch(Words& words) {
    const std::string name = words.option("arch").value_or("wormhole");
    if (name != "wormhole" && name != "blackhole") {
        throw ScriptError{"no architecture " + name};
    }
    return name == "wormhole" ? Arch::WORMHOLE : Arch::BLACKHOLE;
}

std::string Driver::open(Words& words) {
    const std::string name = words.option("name").value_or("");
    const Arch chip_arch = arch(words);
    const std::string kind = words.word("mesh or device");
    const int first = static_cast<int>(words.number("CHIP"));
    if (kind == "device") {
        words.end();
        return answer(session_.open_device(name, first, chip_arch));
    }
    if (kind != "mesh") {
        throw ScriptError{"neither mesh nor device: " + kind};
    }
    const int count = static_cast<int>(words.number("COUNT"));
    words.end();
    return answer(session_.open_mesh(name, first, count, chip_arch));
}

std::string Driver::submesh(Words& words) {
    const std::string name = words.option("name").value_or("");
    const std::string parent = words.word("PARENT");
    const std::uint64_t offset = words.number("OFFSET");
    const std::uint64_t count = words.number("COUNT");
    words.end();
    return answer(session_.open_submesh(name, parent, offset, count));
}

std::string Driver::alloc(Words& words) {
    const BufferShardingArgs args = sharding(words);
    const SubDevice sub_device = sub_device_of(words);
    const std::string name = words.word("NAME");
    const OpenDevice& device = session_.device(words.word("DEV"));
    const BufferType type = words.type();
    const std::uint64_t size = words.number("SIZE");
    const std::uint64_t page = words.number("PAGE");
    words.end();
    const Buffer& buffer = session_.allocate(name, device, type, size, page, args, sub_device);
    return answer(buffer, size == 0 ? 0 : taken_of_a_bank(buffer));
}

std::string Driver::place(Words& words) {
    const std::string name = words.word("NAME");
    const OpenDevice& device = session_.device(words.word("DEV"));
    const BufferType type = words.type();
    const std::uint64_t size = words.number("SIZE");
    const std::uint64_t page = words.number("PAGE");
    const std::uint64_t address = words.number("ADDRESS");
    words.end();
    return answer(session_.place(name, device, type, size, page, address), 0);
}

std::string Driver::free_buffer(Words& words) {
    session_.free(words.word("NAME"));
    return "ok";
}

std::string Driver::park(Words& words, bool on) {
    const std::string name = on ? words.word("NAME") : "";
    words.end();
    on ? session_.park(name) : session_.unpark();
    return "ok";
}

std::string Driver::close(Words& words, bool bulk) {
    const std::string name = words.word("DEV");
    words.end();
    const auto& allocator = session_.device(name).device->allocator_impl();
    const std::size_t live = allocator->live_truth().size();
    if (bulk) {
        allocator->deallocate_buffers();
    } else {
        session_.close(name);
    }
    return "ok buffers=" + std::to_string(live);
}

std::string Driver::oom(Words& words) {
    const OpenDevice& device = session_.device(words.word("DEV"));
    const BufferType type = words.type();
    words.end();
    allocate(device, type, std::uint64_t{1} << 44, 1U << 20);
    return "error the allocation has succeeded";
}

std::string Driver::shrink(Words& words) {
    const OpenDevice& device = session_.device(words.word("DEV"));
    const BufferType type = words.type();
    const std::uint64_t bytes = words.number("BYTES");
    words.end();
    const auto& allocator = device.device->allocator_impl();
    allocator->reset_allocator_size(type);
    allocator->shrink_allocator_size(type, bytes, true);
    return "ok";
}

std::string Driver::wild(Words& words) {
    words.end();
    // The library itself does not look at it: nobody listens.
    tt::tt_metal::GraphTracker::instance().track_allocate(reinterpret_cast<const Buffer*>(8));
    return "ok";
}

std::string Driver::hooked(Words& words) {
    const OpenDevice& device = session_.device(words.word("DEV"));
    words.end();
    auto& tracker = tt::tt_metal::GraphTracker::instance();
    tracker.set_no_dispatch(true);
    const NamedBuffer taken = allocate(device, BufferType::DRAM, 4096, 2048);
    tracker.set_no_dispatch(false);
    return answer(*taken.buffer, 0);
}

unsigned number_of_threads(Words& words) {
    const std::uint64_t threads = words.number("THREADS");
    if (threads == 0 || threads > 256) {
        throw ScriptError{"1 to 256 threads"};
    }
    return static_cast<unsigned>(threads);
}

std::string Driver::churn_load(Words& words) {
    const auto keep = words.option("keep");
    const auto small = words.option("small");
    const unsigned threads = number_of_threads(words);
    const std::uint64_t pairs = words.number("PAIRS");
    const std::uint64_t seed = words.number("SEED");
    words.end();
    std::optional<BufferType> only;
    if (small) {
        only = parse_type(*small);
    }
    const std::uint64_t kept = keep ? parse_number(*keep, "keep") : 0;
    return answer(churn(session_, threads, pairs, seed, kept, only));
}

std::string Driver::stir(Words& words) {
    const auto keep = words.option("keep");
    const unsigned threads = number_of_threads(words);
    const std::uint64_t seed = words.number("SEED");
    words.end();
    const std::uint64_t kept = keep ? parse_number(*keep, "keep") : 0;
    constexpr auto kNoEnd = std::numeric_limits<std::uint64_t>::max();
    return answer(churn(session_, threads, kNoEnd, seed, kept, {}, [] { read_line(); }));
}

std::string Driver::storm_load(Words& words, bool hold) {
    const std::uint64_t count = words.number("N");
    words.end();
    return answer(storm(session_, count, hold));
}

std::string Driver::rate(Words& words) {
    const double per_second = words.real("PER_SECOND");
    const double seconds = words.real("SECONDS");
    words.end();
    return answer(paced(session_, per_second, seconds));
}

std::string Driver::fork_child(Words& words) {
    const std::uint64_t count = words.more() ? words.number("K") : 10;
    words.end();
    const OpenDevice& device = first_device();
    const pid_t child = ::fork();
    if (child < 0) {
        throw ScriptError{std::string("fork: ") + std::strerror(errno)};
    }
    if (child == 0) {
        int code = 0;
        try {
            for (std::uint64_t i = 0; i < count; ++i) {
                allocate(device, BufferType::DRAM, 4096, 2048);
            }
        } catch (...) {
            code = 1;
        }
        // Without destructors: the parent's buffers are not the child's to free.
        ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return "ok child=" + std::to_string(child) + " allocations=" + std::to_string(count) +
           " frees=" + std::to_string(count) + " status=" + std::to_string(status);
}

std::string Driver::exec(Words& words) {
    // By its own path, as it was started: that is what it can be found by.
    const std::string path =
        words.more() ? words.word("PATH") : std::filesystem::read_symlink("/proc/self/exe").string();
    words.end();
    ::execl(path.c_str(), path.c_str(), nullptr);
    throw ScriptError{"exec " + path + ": " + std::strerror(errno)};
}

std::string Driver::throw_many(Words& words) {
    const std::uint64_t count = words.number("N");
    words.end();
    const OpenDevice& device = first_device();
    std::uint64_t caught = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        try {
            allocate(device, BufferType::DRAM, std::uint64_t{1} << 44, 1U << 20);
        } catch (const std::exception&) {
            ++caught;
        }
    }
    return "ok caught=" + std::to_string(caught);
}

const OpenDevice& Driver::first_device() const {
    if (session_.devices().empty()) {
        throw ScriptError{"no device is open"};
    }
    return session_.devices().front();
}

std::optional<std::string> Driver::run(Words& words) {
    const std::string command = words.word("COMMAND");
    if (command == "quit") {
        exit_code = words.more() ? static_cast<int>(words.number("CODE")) : 0;
        return std::nullopt;
    }
    if (command == "crash") {
        // No core file: hundreds of test runs should leave nothing behind.
        ::prctl(PR_SET_DUMPABLE, 0);
        ::raise(SIGSEGV);
    }
    if (command == "scribble") {
        const bool still = words.option("still").value_or("0") == "1";
        const std::uint64_t seed = words.number("SEED");
        scribble(seed, words.number("WORDS"), still);
    }
    if (command == "sleep") {
        std::this_thread::sleep_for(std::chrono::milliseconds(words.number("MS")));
        return "ok";
    }
    const std::map<std::string, std::function<std::string()>> commands = {
        {"open", [&] { return open(words); }},
        {"submesh", [&] { return submesh(words); }},
        {"alloc", [&] { return alloc(words); }},
        {"place", [&] { return place(words); }},
        {"free", [&] { return free_buffer(words); }},
        {"park", [&] { return park(words, true); }},
        {"unpark", [&] { return park(words, false); }},
        {"bulk", [&] { return close(words, true); }},
        {"close", [&] { return close(words, false); }},
        {"oom", [&] { return oom(words); }},
        {"shrink", [&] { return shrink(words); }},
        {"hooked", [&] { return hooked(words); }},
        {"wild", [&] { return wild(words); }},
        {"churn", [&] { return churn_load(words); }},
        {"stir", [&] { return stir(words); }},
        {"storm", [&] { return storm_load(words, false); }},
        {"hold", [&] { return storm_load(words, true); }},
        {"release", [&] { return "ok frees=" + std::to_string(session_.release()); }},
        {"rate", [&] { return rate(words); }},
        {"fork", [&] { return fork_child(words); }},
        {"exec", [&] { return exec(words); }},
        {"throw", [&] { return throw_many(words); }},
        {"state", [&] { return state_json(session_); }},
        {"live", [&] { return live_json(session_); }},
        {"pid", [&] { return "ok pid=" + std::to_string(::getpid()); }},
    };
    const auto entry = commands.find(command);
    if (entry == commands.end()) {
        if (auto reply = programs_.run(command, words, session_)) {
            return reply;
        }
        if (auto reply = run_sub_devices(command, words, session_)) {
            return reply;
        }
        throw ScriptError{"no command " + command};
    }
    return entry->second();
}

void say(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

int drive() {
    say("ready pid=" + std::to_string(::getpid()));
    Driver driver;
    while (const auto line = read_line()) {
        Words words(*line);
        if (words.empty() || (*line)[0] == '#') {
            continue;
        }
        try {
            const auto reply = driver.run(words);
            if (!reply) {
                break;
            }
            say(*reply);
        } catch (const ScriptError& error) {
            say("error " + error.what);
        } catch (const std::exception& error) {
            say(std::string("caught ") + error.what());
        }
    }
    // A program that exits does not free its buffers one by one.
    std::fflush(stdout);
    ::_exit(driver.exit_code);
}

}  // namespace
}  // namespace standin

int main(int argc, char** argv) {
    if (argc > 1) {
        const bool help = std::strcmp(argv[1], "--help") == 0;
        std::fputs(standin::kHelp, help ? stdout : stderr);
        return help ? 0 : 2;
    }
    return standin::drive();
}
