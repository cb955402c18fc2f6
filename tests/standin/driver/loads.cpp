#include "loads.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

namespace standin {
namespace {

using Clock = std::chrono::steady_clock;

const std::vector<OpenDevice>& some_devices(const Session& session) {
    if (session.devices().empty()) {
        throw ScriptError{"no device is open"};
    }
    return session.devices();
}

NamedBuffer allocate_random(
    const std::vector<OpenDevice>& devices, std::optional<BufferType> only, Random& random) {
    const OpenDevice& device = devices[random.below(devices.size())];
    const auto type = only.value_or(static_cast<BufferType>(random.below(tt::tt_metal::kBufferTypes)));
    // Small enough for the smallest pool, whatever the number of threads.
    const bool small = only || type == BufferType::L1_SMALL || type == BufferType::TRACE;
    const std::uint64_t page = std::uint64_t{16} << random.below(small ? 3 : 8);
    const std::uint64_t pages = 1 + random.below(small ? 64 : 512);
    return allocate(device, type, page * pages, page);
}

void churn_one(
    const std::vector<OpenDevice>& devices,
    std::uint64_t pairs,
    Random random,
    std::uint64_t keep,
    std::optional<BufferType> only,
    const std::atomic<bool>& stop,
    Counts& counts,
    std::vector<NamedBuffer>& kept) {
    constexpr std::size_t kWindow = 16;
    std::vector<NamedBuffer> live(kWindow);
    for (std::uint64_t pair = 0; pair < pairs && !stop.load(std::memory_order_relaxed); ++pair) {
        NamedBuffer& slot = live[random.below(kWindow)];
        counts.frees += slot.buffer != nullptr;
        slot.buffer.reset();
        try {
            slot = allocate_random(devices, only, random);
            counts.allocated(*slot.buffer);
        } catch (const std::exception&) {
            ++counts.failed;
        }
    }
    for (NamedBuffer& slot : live) {
        counts.frees += slot.buffer != nullptr;
        slot.buffer.reset();
    }
    for (std::uint64_t i = 0; i < keep; ++i) {
        try {
            kept.push_back(allocate_random(devices, only, random));
            counts.allocated(*kept.back().buffer);
            ++counts.kept;
        } catch (const std::exception&) {
            ++counts.failed;
        }
    }
}

}  // namespace

void Counts::allocated(const Buffer& buffer) {
    const auto type = static_cast<std::size_t>(buffer.buffer_type());
    ++allocations;
    ++of_type.at(type);
    bytes_of_type.at(type) += buffer.size();
}

void Counts::add(const Counts& other) {
    allocations += other.allocations;
    for (std::size_t type = 0; type < of_type.size(); ++type) {
        of_type.at(type) += other.of_type.at(type);
        bytes_of_type.at(type) += other.bytes_of_type.at(type);
    }
    frees += other.frees;
    failed += other.failed;
    kept += other.kept;
}

Counts churn(
    Session& session,
    unsigned threads,
    std::uint64_t pairs,
    std::uint64_t seed,
    std::uint64_t keep,
    std::optional<BufferType> only,
    const std::function<void()>& until) {
    const std::vector<OpenDevice>& devices = some_devices(session);
    const auto start = Clock::now();
    std::vector<Counts> counts(threads);
    std::vector<std::vector<NamedBuffer>> kept(threads);
    std::vector<std::thread> workers;
    std::atomic<bool> stop = false;
    for (unsigned i = 0; i < threads; ++i) {
        const Random random(seed * 0x100000001b3ULL + i);
        workers.emplace_back([&, i, random] { churn_one(devices, pairs, random, keep, only, stop, counts[i], kept[i]); });
    }
    if (until) {
        until();
        stop = true;
    }
    Counts total;
    for (unsigned i = 0; i < threads; ++i) {
        workers[i].join();
        total.add(counts[i]);
        for (NamedBuffer& buffer : kept[i]) {
            session.keep(std::move(buffer));
        }
    }
    total.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return total;
}

Counts storm(Session& session, std::uint64_t count, bool hold) {
    const OpenDevice& device = some_devices(session).front();
    const auto start = Clock::now();
    Counts counts;
    std::vector<NamedBuffer> live;
    for (std::uint64_t i = 0; i < count; ++i) {
        try {
            live.push_back(allocate(device, BufferType::DRAM, 2048, 2048));
            counts.allocated(*live.back().buffer);
        } catch (const std::exception&) {
            ++counts.failed;
        }
    }
    for (NamedBuffer& buffer : live) {
        if (hold) {
            session.keep(std::move(buffer));
            ++counts.kept;
        } else {
            buffer.buffer.reset();
            ++counts.frees;
        }
    }
    counts.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return counts;
}

Counts paced(Session& session, double per_second, double seconds) {
    if (!(per_second > 0) || !(seconds > 0)) {
        throw ScriptError{"rate and duration must be above 0"};
    }
    const OpenDevice& device = some_devices(session).front();
    const auto start = Clock::now();
    Counts counts;
    for (;;) {
        const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        if (elapsed >= seconds) {
            counts.seconds = elapsed;
            return counts;
        }
        // Catches up after a late wake-up, so that the mean is right.
        while (static_cast<double>(counts.allocations + counts.frees) < elapsed * per_second) {
            counts.allocated(*allocate(device, BufferType::DRAM, 4096, 2048).buffer);
            ++counts.frees;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
}

}  // namespace standin
