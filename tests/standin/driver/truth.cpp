#include "truth.hpp"

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace standin {

using tt::tt_metal::AllocatorImpl;
using tt::tt_metal::BufferTruth;
using tt::tt_metal::kBufferTypes;
using tt::tt_metal::PoolTruth;

const std::array<const char*, kBufferTypes> kTypeNames = {"DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"};

std::string hex(std::uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

std::string hex(const void* pointer) { return hex(reinterpret_cast<std::uintptr_t>(pointer)); }

std::string list(const std::vector<int>& values) {
    std::string text = "[";
    for (const int value : values) {
        text += (text.size() > 1 ? "," : "") + std::to_string(value);
    }
    return text + "]";
}

namespace {

void write_pool(std::ostream& out, std::size_t type, const PoolTruth& pool) {
    out << "\"type\":\"" << kTypeNames[type] << "\",\"buffers\":" << pool.buffers
        << ",\"logical_bytes\":" << pool.logical_bytes << ",\"bank_bytes\":" << pool.bank_bytes
        << ",\"banks\":" << pool.banks << ",\"used\":" << pool.bank_bytes * pool.banks + pool.core_bytes
        << ",\"per_core_buffers\":" << pool.per_core_buffers << ",\"hybrid\":" << (pool.hybrid ? "true" : "false")
        << ",\"capacity\":" << pool.bank_size * pool.banks << ",\"consistent\":" << (pool.consistent ? "true" : "false");
}

/// Of one allocator: what several have free on a chip says nothing together.
void write_space(std::ostream& out, const PoolTruth& pool) {
    out << ",\"base\":" << pool.base << ",\"bank_size\":" << pool.bank_size << ",\"free\":" << pool.free
        << ",\"largest_free\":" << pool.largest_free << ",\"holes\":" << pool.holes;
}

using Pools = std::array<PoolTruth, kBufferTypes>;

void add(Pools& sum, const Pools& pools) {
    for (std::size_t type = 0; type < kBufferTypes; ++type) {
        sum[type].buffers += pools[type].buffers;
        sum[type].logical_bytes += pools[type].logical_bytes;
        sum[type].bank_bytes += pools[type].bank_bytes;
        sum[type].core_bytes += pools[type].core_bytes;
        sum[type].per_core_buffers += pools[type].per_core_buffers;
        sum[type].hybrid = sum[type].hybrid || pools[type].hybrid;
        // Every allocator of a chip hands out the same memory: capacities do not add up.
        if (pools[type].bank_size * pools[type].banks > sum[type].bank_size * sum[type].banks) {
            sum[type].banks = pools[type].banks;
            sum[type].bank_size = pools[type].bank_size;
        }
        sum[type].consistent = sum[type].consistent && pools[type].consistent;
    }
}

/// Every allocator of a device: its own, and those of its sub-devices.
std::vector<const AllocatorImpl*> allocators_of(const OpenDevice& device) {
    std::vector<const AllocatorImpl*> all = {device.device->allocator_impl().get()};
    if (device.mesh != nullptr) {
        for (const auto& [id, manager] : device.mesh->sub_devices().managers()) {
            for (const auto& allocator : manager->allocators()) {
                all.push_back(allocator.get());
            }
        }
    }
    return all;
}

void add_to_chips(std::map<int, Pools>& by_chip, const std::vector<int>& chips, const Pools& pools) {
    for (const int chip : chips) {
        auto [entry, fresh] = by_chip.try_emplace(chip);
        if (fresh) {
            for (PoolTruth& pool : entry->second) {
                pool.consistent = true;
            }
        }
        add(entry->second, pools);
    }
}

}  // namespace

std::string state_json(const Session& session) {
    std::ostringstream out;
    std::map<int, Pools> by_chip;
    const char* comma = "";
    out << "{\"allocators\":[";
    for (const OpenDevice& device : session.devices()) {
        for (const AllocatorImpl* allocator : allocators_of(device)) {
            const bool sub_device = allocator != device.device->allocator_impl().get();
            Pools pools = allocator->pool_truth();
            // A sub-device has no DRAM; what its bank's size says has wrapped around.
            constexpr auto kDram = static_cast<std::size_t>(BufferType::DRAM);
            if (sub_device) {
                pools[kDram].bank_size = 0;
            }
            for (std::size_t type = 0; type < kBufferTypes; ++type) {
                if (sub_device && type == kDram) {
                    continue;
                }
                out << comma << "{\"device\":\"" << device.name << "\",\"mesh\":" << (device.mesh ? "true" : "false")
                    << ",\"id\":" << device.device->id() << ",\"chips\":" << list(device.chips) << ",\"allocator\":\""
                    << hex(allocator) << "\",\"sub_device\":" << (sub_device ? "true" : "false") << ',';
                write_pool(out, type, pools[type]);
                write_space(out, pools[type]);
                out << '}';
                comma = ",";
            }
            add_to_chips(by_chip, device.chips, pools);
        }
    }
    out << "],\"chips\":[";
    comma = "";
    for (const auto& [chip, pools] : by_chip) {
        for (std::size_t type = 0; type < kBufferTypes; ++type) {
            out << comma << "{\"chip\":" << chip << ',';
            write_pool(out, type, pools[type]);
            out << '}';
            comma = ",";
        }
    }
    out << "]}";
    return out.str();
}

std::string live_json(const Session& session) {
    std::ostringstream out;
    const char* comma = "";
    out << '[';
    for (const OpenDevice& device : session.devices()) {
        std::vector<BufferTruth> live;
        for (const AllocatorImpl* allocator : allocators_of(device)) {
            const std::vector<BufferTruth> more = allocator->live_truth();
            live.insert(live.end(), more.begin(), more.end());
        }
        std::sort(live.begin(), live.end(), [](const BufferTruth& a, const BufferTruth& b) {
            return std::pair(a.type, a.address) < std::pair(b.type, b.address);
        });
        for (const BufferTruth& buffer : live) {
            out << comma << "{\"uid\":";
            if (buffer.unique_id.has_value()) {
                out << *buffer.unique_id;
            } else {
                out << "null";
            }
            out << ",\"device\":\"" << device.name << "\",\"chips\":" << list(device.chips) << ",\"type\":\""
                << kTypeNames[static_cast<std::size_t>(buffer.type)] << "\",\"address\":" << buffer.address
                << ",\"size\":" << buffer.size << ",\"page_size\":" << buffer.page_size
                << ",\"bank_bytes\":" << buffer.bank_bytes << ",\"cores\":"
                << (buffer.cores > 0 ? std::to_string(buffer.cores) : "null") << ",\"host\":\"" << hex(buffer.buffer) << "\"}";
            comma = ",";
        }
    }
    out << ']';
    return out.str();
}

}  // namespace standin
