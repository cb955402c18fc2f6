// ask.c with the C++ reader.

#include <iostream>
#include <memory>
#include <sstream>

#include "ttmem.hpp"

namespace {

std::string name_of(int code) {
    std::string name = ttmem_result_name(code);
    for (char& letter : name) {
        letter = letter == ' ' ? '-' : letter;
    }
    return name;
}

void answer(std::unique_ptr<ttmem::Monitor>& monitor, std::istringstream& words) {
    std::string word, directory;
    long number = 0;
    words >> word >> number >> directory;
    if (word == "open") {
        monitor.reset();
        monitor = std::make_unique<ttmem::Monitor>(number, directory);
        std::cout << "ok";
    } else if (!monitor) {
        std::cout << "error nothing is open";
    } else if (word == "process") {
        const auto process = monitor->process();
        std::cout << "state=" << process.state << " exact=" << process.exact << " " << process.command;
    } else {
        const int chip = static_cast<int>(number);
        const auto device = word == "now" ? monitor->query_device_now(chip, 10000) : monitor->query_device(chip);
        std::cout << "used=" << device.dram.used << " buffers=" << device.dram.buffers << " exact=" << device.exact;
    }
}

}  // namespace

int main() {
    std::unique_ptr<ttmem::Monitor> monitor;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        try {
            answer(monitor, words);
        } catch (const ttmem::Error& error) {
            std::cout << "error " << name_of(error.code()) << " " << error.what();
        }
        std::cout << std::endl;
    }
    return 0;
}
