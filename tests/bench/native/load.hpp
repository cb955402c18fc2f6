// A load of allocations and frees that is told by lines on standard input what to do, and says in a
// line of JSON how long it took. A pair is an allocation and a free: two events.
//
//   tight THREADS PAIRS         as fast as it goes; `ns` is that of all threads' own times together
//   paced PER_SECOND PAIRS      a pair at each tick, waiting by spinning; only the pairs are timed
//   work LOOPS PAIRS            as tight, and after each event that many steps of arithmetic
//   loops N                     how long N steps of that arithmetic take
//   hold N | release            N buffers more that stay | gone
//   sites                       where the probed functions are, and whether they are probed
//
// It ends with its standard input.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "sites.hpp"

namespace bench {

using Clock = std::chrono::steady_clock;
using Buffer = std::shared_ptr<void>;

inline std::uint64_t since(Clock::time_point start) {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

/// Steps that depend on each other, so that a processor cannot overlap them.
inline std::uint64_t arithmetic(std::uint64_t steps) {
    std::uint64_t value = steps;
    for (std::uint64_t i = 0; i < steps; ++i) {
        value = value * 6364136223846793005ULL + 1442695040888963407ULL;
        asm volatile("" : "+r"(value));
    }
    return value;
}

/// `Allocate(thread)` makes a buffer for that thread; dropping what it returns frees it.
template <class Allocate>
class Load {
public:
    Load(Allocate allocate, Sites sites) : allocate_(std::move(allocate)), sites_(std::move(sites)) {}

    int serve() {
        std::cout << "{\"ready\":true}" << std::endl;
        std::string line;
        while (std::getline(std::cin, line)) {
            std::istringstream words(line);
            std::string command;
            std::uint64_t first = 0, second = 0;
            words >> command >> first >> second;
            std::cout << answer(command, first, second) << std::endl;
        }
        return 0;
    }

private:
    std::string answer(const std::string& command, std::uint64_t first, std::uint64_t second) {
        if (command == "tight") {
            return timed(tight(first, second, 0), first * second);
        }
        if (command == "work") {
            return timed(tight(1, second, first), second);
        }
        if (command == "paced") {
            return timed(paced(first, second), second);
        }
        if (command == "loops") {
            const auto start = Clock::now();
            arithmetic(first);
            return timed(since(start), 0);
        }
        if (command == "hold") {
            for (std::uint64_t i = 0; i < first; ++i) {
                held_.push_back(allocate_(0));
            }
            return "{\"held\":" + std::to_string(held_.size()) + "}";
        }
        if (command == "release") {
            held_.clear();
            return "{\"held\":0}";
        }
        return command == "sites" ? sites_.json() : "{\"error\":\"no command " + command + "\"}";
    }

    static std::string timed(std::uint64_t ns, std::uint64_t pairs) {
        return "{\"ns\":" + std::to_string(ns) + ",\"events\":" + std::to_string(2 * pairs) + "}";
    }

    std::uint64_t tight(std::uint64_t threads, std::uint64_t pairs, std::uint64_t steps) {
        std::vector<std::uint64_t> taken(threads);
        std::vector<std::thread> workers;
        for (std::uint64_t thread = 0; thread < threads; ++thread) {
            workers.emplace_back([&, thread] { taken[thread] = one(thread, pairs, steps); });
        }
        std::uint64_t sum = 0;
        for (std::uint64_t thread = 0; thread < threads; ++thread) {
            workers[thread].join();
            sum += taken[thread];
        }
        return sum;
    }

    std::uint64_t one(std::uint64_t thread, std::uint64_t pairs, std::uint64_t steps) {
        const auto start = Clock::now();
        for (std::uint64_t i = 0; i < pairs; ++i) {
            Buffer buffer = allocate_(thread);
            arithmetic(steps);
            buffer.reset();
            arithmetic(steps);
        }
        return since(start);
    }

    std::uint64_t paced(std::uint64_t per_second, std::uint64_t pairs) {
        const auto gap = std::chrono::nanoseconds(2'000'000'000 / std::max<std::uint64_t>(per_second, 1));
        std::uint64_t taken = 0;
        auto next = Clock::now();
        for (std::uint64_t i = 0; i < pairs; ++i) {
            while (Clock::now() < next) {
            }
            const auto start = Clock::now();
            allocate_(0);
            taken += since(start);
            // No catching up: after a pause the pairs would come in a burst.
            next = std::max(next + gap, start);
        }
        return taken;
    }

    Allocate allocate_;
    Sites sites_;
    std::vector<Buffer> held_;
};

template <class Allocate>
int serve(Allocate allocate, Sites sites) {
    if (!sites.allocate.found() || !sites.free.found()) {
        std::cerr << "the library lacks the functions that are probed\n";
        return 1;
    }
    return Load<Allocate>(std::move(allocate), std::move(sites)).serve();
}

}  // namespace bench
