// Sub-devices: managers of them, each with an allocator per sub-device.
#pragma once

#include <optional>
#include <string>

#include "words.hpp"

namespace standin {

/// Does a command of this family; nothing if it is none.
std::optional<std::string> run_sub_devices(const std::string& command, Words& words, Session& session);
/// The sub-device that `sub=N` names.
SubDevice sub_device_of(Words& words);

}  // namespace standin
