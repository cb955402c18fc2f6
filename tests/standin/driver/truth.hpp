// What the allocators' own tables say, as one line of JSON.
#pragma once

#include "session.hpp"

namespace standin {

std::string state_json(const Session& session);
std::string live_json(const Session& session);

/// Hexadecimal, with 0x.
std::string hex(std::uint64_t value);
std::string hex(const void* pointer);
/// `[0,1]`
std::string list(const std::vector<int>& values);
extern const std::array<const char*, tt::tt_metal::kBufferTypes> kTypeNames;

}  // namespace standin
