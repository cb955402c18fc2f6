// What ttmem::Figure and ttmem::Change do, and what they refuse. Says which line does not hold.

#include <cstddef>
#include <iostream>
#include <sstream>

#include "ttmem.hpp"

namespace {

int failures = 0;

void check(bool holds, int line) {
    if (!holds) {
        std::cout << "line " << line << " does not hold\n";
        ++failures;
    }
}

template <typename Use>
bool refuses(const Use& use) {
    try {
        use();
    } catch (const ttmem::Unknown&) {
        return true;
    }
    return false;
}

template <typename T>
std::string printed(const T& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

}  // namespace

#define CHECK(holds) check(holds, __LINE__)

/// A chip whose circular buffers and tensors are so near.
ttmem::Device chip_with(std::uint64_t headroom_state, std::int64_t headroom_bytes) {
    ttmem_device device{};
    device.headroom_state = headroom_state;
    device.headroom_bytes = headroom_bytes;
    device.circular_programs = 2;
    device.circular_buffers = 9;
    return ttmem::Device(device);
}

void check_chips() {
    const ttmem::Device clash = chip_with(TTMEM_HEADROOM_CLASH, -512);
    CHECK(clash.headroom.state() == TTMEM_HEADROOM_CLASH);
    CHECK(clash.headroom.bytes() == -512);
    CHECK(clash.circular_programs == 2);
    CHECK(clash.circular_buffers == 9);
    for (const std::uint64_t state : {std::uint64_t{0}, std::uint64_t{4}, TTMEM_UNKNOWN}) {
        const ttmem::Device unknown = chip_with(state, 0);
        CHECK(!unknown.headroom.known());
        CHECK(refuses([&] { return unknown.headroom.bytes(); }));
    }
}

int main() {
    check_chips();
    const ttmem::Figure ten(10), seven(7), unknown(TTMEM_UNKNOWN);
    const std::size_t most = 5;
    const int negative = -1;
    CHECK(ten - seven <= most);
    CHECK(most > ten - seven);
    CHECK(seven - ten < most);
    CHECK(seven - ten < 0);
    CHECK(seven - ten == -3);
    CHECK(ten - seven >= 3L);
    CHECK(seven - ten < seven);
    CHECK(ten > seven - ten);
    CHECK(ten > negative);
    CHECK(negative < ten);
    CHECK(ten == 10U);
    CHECK(ten != seven);
    CHECK(ten >= seven);
    CHECK(!(ten < seven));
    const std::uint64_t bytes = ten;
    const std::int64_t change = seven - ten;
    CHECK(bytes == 10 && change == -3);
    CHECK(ten.known() && !unknown.known());
    CHECK(unknown.value_or(4) == 4);
    CHECK(printed(ten) == "10" && printed(unknown) == "unknown" && printed(seven - ten) == "-3");
    CHECK(refuses([&] { return unknown - ten; }));
    CHECK(refuses([&] { return ten - unknown; }));
    CHECK(refuses([&] { return unknown < 5; }));
    CHECK(refuses([&] { return unknown == unknown; }));
    CHECK(refuses([&] { return unknown + 1; }));
    CHECK(refuses([&] {
        const std::uint64_t value = unknown;
        return value;
    }));
    return failures == 0 ? 0 : 1;
}
