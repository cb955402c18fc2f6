#include "programs.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <sstream>

#include "truth.hpp"

namespace standin {
namespace {

using tt::tt_metal::CoreRange;
using tt::tt_metal::CoreRangeSet;
using tt::tt_metal::detail::ProgramImpl;

/// `0,0-7,6;9,9-9,9`
CoreRangeSet parse_cores(const std::string& text) {
    std::vector<CoreRange> ranges;
    std::istringstream pieces(text);
    for (std::string piece; std::getline(pieces, piece, ';');) {
        CoreRange range;
        char comma = 0;
        char dash = 0;
        char second = 0;
        std::istringstream numbers(piece);
        numbers >> range.start.x >> comma >> range.start.y >> dash >> range.end.x >> second >> range.end.y;
        if (!numbers || comma != ',' || dash != '-' || second != ',') {
            throw ScriptError{"no range of cores: " + piece};
        }
        ranges.push_back(range);
    }
    return CoreRangeSet(std::move(ranges));
}

std::string pair(std::uint64_t x, std::uint64_t y) { return "[" + std::to_string(x) + "," + std::to_string(y) + "]"; }

std::string cores_json(const std::vector<CoreRange>& ranges) {
    std::string text = "[";
    for (const CoreRange& range : ranges) {
        text += (text.size() > 1 ? "," : "");
        text += "{\"start\":" + pair(range.start.x, range.start.y) + ",\"end\":" + pair(range.end.x, range.end.y) + "}";
    }
    return text + "]";
}

std::string buffer_json(
    const char* kind, std::uint64_t address, std::uint64_t size, const std::vector<CoreRange>& cores) {
    return std::string("{\"kind\":\"") + kind + "\",\"address\":" + std::to_string(address) +
           ",\"size\":" + std::to_string(size) + ",\"cores\":" + cores_json(cores) + "}";
}

struct Taken {
    std::uint64_t largest = 0;
    std::uint64_t total = 0;
    std::uint64_t cores = 0;
    std::uint64_t end = 0;
};

/// Which bytes each core gives, core by core.
class Count {
public:
    void add(const CoreRange& range, std::uint64_t address, std::uint64_t size) {
        for (std::uint64_t x = range.start.x; x <= range.end.x; ++x) {
            for (std::uint64_t y = range.start.y; y <= range.end.y; ++y) {
                spans_[{x, y}].emplace(address, address + size);
            }
        }
        end_ = std::max(end_, address + size);
    }

    Taken taken() const {
        Taken taken{0, 0, spans_.size(), end_};
        for (const auto& [core, spans] : spans_) {
            std::uint64_t bytes = 0;
            std::uint64_t reached = 0;
            for (const auto& [begin, end] : spans) {
                bytes += end - std::min(end, std::max(begin, reached));
                reached = std::max(reached, end);
            }
            taken.largest = std::max(taken.largest, bytes);
            taken.total += bytes;
        }
        return taken;
    }

private:
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::set<std::pair<std::uint64_t, std::uint64_t>>> spans_;
    std::uint64_t end_ = 0;
};

std::string program_json(const std::string& name, const ProgramImpl& program) {
    Count count;
    std::string buffers;
    const auto add = [&](const std::string& text) { buffers += (buffers.empty() ? "" : ",") + text; };
    for (const auto& buffer : program.circular_buffers()) {
        const bool alias = buffer.global_address.has_value();
        add(buffer_json(alias ? "alias" : "circular", buffer.address, buffer.size, buffer.cores.ranges()));
        for (const CoreRange& range : buffer.cores.ranges()) {
            if (!alias) {
                count.add(range, buffer.address, buffer.size);
            }
        }
    }
    for (const auto& mark : program.marks()) {
        add(buffer_json("dataflow", mark.address, mark.size, {mark.cores}));
        count.add(mark.cores, mark.address, mark.size);
    }
    std::set<int> chips = program.circular_chips();
    chips.insert(program.dataflow_chips().begin(), program.dataflow_chips().end());
    const Taken taken = count.taken();
    return "{\"name\":\"" + name + "\",\"program\":" + std::to_string(reinterpret_cast<std::uintptr_t>(&program)) +
           ",\"chips\":" + list({chips.begin(), chips.end()}) + ",\"core_bytes\":" + std::to_string(taken.largest) +
           ",\"chip_bytes\":" + std::to_string(taken.total) + ",\"cores\":" + std::to_string(taken.cores) +
           ",\"end\":" + std::to_string(taken.end) + ",\"buffers\":[" + buffers + "]}";
}

}  // namespace

tt::tt_metal::Program& Programs::program(const std::string& name) {
    const auto entry = programs_.find(name);
    if (entry == programs_.end()) {
        throw ScriptError{"no program " + name};
    }
    return *entry->second;
}

std::string Programs::make(Words& words) {
    const std::string name = words.word("NAME");
    words.end();
    auto& slot = programs_[name];
    slot = std::make_unique<Program>();
    return "ok host=" + hex(&slot->impl());
}

std::string Programs::add(Words& words, bool dataflow) {
    const auto alias = words.option("alias");
    ProgramImpl& target = program(words.word("PROGRAM")).impl();
    const std::uint64_t size = words.number("SIZE");
    CoreRangeSet cores = parse_cores(words.word("CORES"));
    words.end();
    if (dataflow) {
        target.add_dataflow_buffer(std::move(cores), size);
    } else {
        const auto address = alias ? std::optional(parse_number(*alias, "alias")) : std::nullopt;
        target.add_circular_buffer(std::move(cores), size, address);
    }
    return "ok";
}

std::string Programs::resize(Words& words) {
    ProgramImpl& target = program(words.word("PROGRAM")).impl();
    const std::uint64_t index = words.number("INDEX");
    const std::uint64_t size = words.number("SIZE");
    words.end();
    if (index >= target.circular_buffers().size()) {
        throw ScriptError{"no such circular buffer"};
    }
    target.resize(index, size);
    return "ok";
}

std::string Programs::dispatch(Words& words, const Session& session) {
    Program& target = program(words.word("PROGRAM"));
    const OpenDevice& device = session.device(words.word("DEV"));
    const std::uint64_t times = words.more() ? words.number("TIMES") : 1;
    words.end();
    for (std::uint64_t time = 0; time < times; ++time) {
        tt::tt_metal::dispatch(target, device.device.get());
    }
    return "ok";
}

std::string Programs::end(Words& words) {
    const std::string name = words.word("PROGRAM");
    words.end();
    program(name);
    programs_.erase(name);
    return "ok";
}

std::string Programs::many(Words& words, const Session& session) {
    const std::uint64_t count = words.number("N");
    const OpenDevice& device = session.device(words.word("DEV"));
    std::mt19937_64 random(words.number("SEED"));
    words.end();
    const auto below = [&](std::uint64_t limit) { return random() % limit; };
    const auto range = [&] {
        CoreRange cores;
        cores.start = {below(8), below(7)};
        cores.end = {cores.start.x + below(8 - cores.start.x), cores.start.y + below(7 - cores.start.y)};
        return CoreRangeSet(std::vector<CoreRange>{cores});
    };
    for (std::uint64_t number = 0; number < count; ++number) {
        auto made = std::make_unique<Program>();
        const std::uint64_t buffers = 1 + below(6);
        for (std::uint64_t buffer = 0; buffer < buffers; ++buffer) {
            const std::uint64_t size = 32 * (1 + below(500));
            if (number % 3 == 2) {
                made->impl().add_dataflow_buffer(range(), size);
            } else {
                const bool alias = buffer > 0 && below(4) == 0;
                made->impl().add_circular_buffer(range(), size, alias ? std::optional(1000000 + size) : std::nullopt);
            }
        }
        tt::tt_metal::dispatch(*made, device.device.get());
        programs_["p" + std::to_string(number)] = std::move(made);
    }
    return "ok programs=" + std::to_string(count);
}

std::string Programs::state() const {
    std::string text = "[";
    for (const auto& [name, program] : programs_) {
        text += (text.size() > 1 ? "," : "") + program_json(name, program->impl());
    }
    return text + "]";
}

std::optional<std::string> Programs::run(const std::string& command, Words& words, const Session& session) {
    if (command == "program") {
        return make(words);
    }
    if (command == "cb" || command == "dfb") {
        return add(words, command == "dfb");
    }
    if (command == "resize") {
        return resize(words);
    }
    if (command == "dispatch") {
        return dispatch(words, session);
    }
    if (command == "end") {
        return end(words);
    }
    if (command == "programs") {
        return words.more() ? many(words, session) : state();
    }
    return std::nullopt;
}

}  // namespace standin
