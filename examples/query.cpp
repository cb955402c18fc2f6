// Asks once what a process holds of a chip, and how that changes over a while.
//
//     g++ -std=c++17 -O2 -I include examples/query.cpp -o query
//     ./query PID [CHIP [MILLISECONDS]]       0 for PID: this process itself
//
// Needs a ttmem that watches the process: `sudo ttmem attach --headless --pid PID`.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "ttmem.hpp"

namespace {

void print(const char* name, const ttmem::Pool& pool) {
    if (pool.present) {
        std::cout << name << ": " << pool.used << " of " << pool.capacity << " bytes used by " << pool.buffers
                  << " buffers, at most " << pool.peak_used << "\n";
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: query PID [CHIP [MILLISECONDS]]\n";
        return 1;
    }
    const long pid = std::strtol(argv[1], nullptr, 10);
    const int chip = argc > 2 ? std::atoi(argv[2]) : 0;
    const int wait = argc > 3 ? std::atoi(argv[3]) : 100;
    try {
        ttmem::Monitor monitor(pid);
        const auto before = monitor.query_device_now(chip);
        std::this_thread::sleep_for(std::chrono::milliseconds(wait));
        const auto after = monitor.query_device_now(chip);
        print("DRAM", after.dram);
        print("L1", after.l1);
        std::cout << "DRAM changed by " << after.dram.used - before.dram.used << " bytes in " << wait << " ms\n";
        if (!after.exact) {
            std::cout << "not exact: " << monitor.process().inexact_because << "\n";
            return 2;
        }
    } catch (const std::runtime_error& error) {
        std::cerr << "query: " << error.what() << "\n";
        return 1;
    }
    return 0;
}
