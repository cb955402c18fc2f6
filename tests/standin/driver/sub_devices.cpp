#include "sub_devices.hpp"

#include "truth.hpp"

namespace standin {
namespace {

using tt::tt_metal::SubDeviceManagerId;
using tt::tt_metal::SubDeviceManagerTracker;

SubDeviceManagerTracker& tracker(const Session& session, Words& words) {
    const OpenDevice& device = session.device(words.word("DEV"));
    if (device.mesh == nullptr) {
        throw ScriptError{device.name + " is not a mesh"};
    }
    return device.mesh->sub_devices();
}

std::string create(Words& words, Session& session) {
    SubDeviceManagerTracker& managers = tracker(session, words);
    const std::uint64_t bytes = words.number("L1_BYTES");
    std::vector<tt::tt_metal::SubDevice> sub_devices;
    do {
        sub_devices.push_back({words.number("CORES")});
    } while (words.more());
    const SubDeviceManagerId id = managers.create_sub_device_manager(sub_devices, bytes);
    std::string text = "ok manager=" + std::to_string(*id) + " allocators=";
    const char* comma = "";
    for (const auto& allocator : managers.managers().at(*id)->allocators()) {
        text += comma + hex(allocator.get());
        comma = ",";
    }
    return text;
}

}  // namespace

std::optional<std::string> run_sub_devices(const std::string& command, Words& words, Session& session) {
    if (command == "subdevices") {
        return create(words, session);
    }
    if (command != "load" && command != "unload" && command != "remove") {
        return std::nullopt;
    }
    SubDeviceManagerTracker& managers = tracker(session, words);
    const SubDeviceManagerId id = command == "unload" ? managers.get_default_sub_device_manager()->id()
                                                      : SubDeviceManagerId{words.number("MANAGER")};
    words.end();
    if (command == "remove") {
        managers.remove_sub_device_manager(id);
    } else {
        managers.load_sub_device_manager(id);
    }
    return "ok";
}

SubDevice sub_device_of(Words& words) {
    const auto number = words.option("sub");
    if (!number) {
        return std::nullopt;
    }
    return tt::tt_metal::SubDeviceId{static_cast<std::uint8_t>(parse_number(*number, "sub"))};
}

}  // namespace standin
