#include "words.hpp"

#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "truth.hpp"

namespace standin {

using tt::tt_metal::BufferDistributionSpec;
using tt::tt_metal::CoreCoord;
using tt::tt_metal::CoreRangeSet;
using tt::tt_metal::ShardSpecBuffer;
using tt::tt_metal::TensorMemoryLayout;

Words::Words(const std::string& line) {
    std::istringstream in(line);
    for (std::string word; in >> word;) {
        words_.push_back(word);
    }
}

std::string Words::word(const char* what) {
    if (!more()) {
        throw ScriptError{std::string("missing: ") + what};
    }
    return words_[next_++];
}

std::uint64_t parse_number(const std::string& text, const std::string& what) {
    std::size_t used = 0;
    std::uint64_t value = 0;
    try {
        value = std::stoull(text, &used, 0);
    } catch (const std::exception&) {
        used = 0;
    }
    if (used == 0 || used != text.size() || text[0] == '-') {
        throw ScriptError{what + " is not a number: " + text};
    }
    return value;
}

std::uint64_t Words::number(const char* what) { return parse_number(word(what), what); }

double Words::real(const char* what) {
    const std::string text = word(what);
    try {
        return std::stod(text);
    } catch (const std::exception&) {
        throw ScriptError{std::string(what) + " is not a number: " + text};
    }
}

BufferType Words::type() { return parse_type(word("TYPE")); }

BufferType parse_type(const std::string& name) {
    for (std::size_t type = 0; type < kTypeNames.size(); ++type) {
        if (name == kTypeNames[type]) {
            return static_cast<BufferType>(type);
        }
    }
    throw ScriptError{"no buffer type " + name};
}

std::optional<std::string> Words::option(const std::string& key) {
    for (std::size_t i = next_; i < words_.size(); ++i) {
        if (words_[i].rfind(key + "=", 0) == 0) {
            std::string value = words_[i].substr(key.size() + 1);
            words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i));
            return value;
        }
    }
    return std::nullopt;
}

void Words::end() const {
    if (more()) {
        throw ScriptError{"unexpected: " + words_[next_]};
    }
}

namespace {

std::vector<std::uint64_t> numbers(const std::string& text, char separator, std::size_t count, const char* what) {
    std::vector<std::uint64_t> values;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);) {
        values.push_back(parse_number(part, what));
    }
    if (values.size() != count) {
        throw ScriptError{std::string(what) + " needs " + std::to_string(count) + " numbers: " + text};
    }
    return values;
}

std::array<std::uint32_t, 2> shape(const std::string& text, const char* what) {
    const auto values = numbers(text, 'x', 2, what);
    return {static_cast<std::uint32_t>(values[0]), static_cast<std::uint32_t>(values[1])};
}

/// Rows of eight cores, and what is left in a row of its own.
CoreRangeSet grid_of(std::uint64_t cores) {
    std::vector<tt::tt_metal::CoreRange> ranges;
    if (cores >= 8) {
        ranges.push_back({{0, 0}, {7, cores / 8 - 1}});
    }
    if (cores % 8 != 0) {
        ranges.push_back({{0, cores / 8}, {cores % 8 - 1, cores / 8}});
    }
    return CoreRangeSet(std::move(ranges));
}

TensorMemoryLayout layout_of(const std::string& name) {
    static const std::map<std::string, TensorMemoryLayout> kLayouts = {
        {"interleaved", TensorMemoryLayout::INTERLEAVED}, {"single_bank", TensorMemoryLayout::SINGLE_BANK},
        {"height", TensorMemoryLayout::HEIGHT_SHARDED},   {"width", TensorMemoryLayout::WIDTH_SHARDED},
        {"block", TensorMemoryLayout::BLOCK_SHARDED},     {"nd", TensorMemoryLayout::ND_SHARDED}};
    const auto layout = kLayouts.find(name);
    if (layout == kLayouts.end()) {
        throw ScriptError{"no layout " + name};
    }
    return layout->second;
}

}  // namespace

BufferShardingArgs sharding(Words& words) {
    BufferShardingArgs args;
    const auto layout = words.option("layout");
    const auto cores = words.option("cores");
    const auto shard = words.option("shard");
    const auto page = words.option("page");
    const auto dist = words.option("dist");
    if (cores || shard || page) {
        if (!cores || !shard || !page) {
            throw ScriptError{"a shard spec needs cores=, shard= and page="};
        }
        ShardSpecBuffer spec;
        spec.grid = grid_of(parse_number(*cores, "cores"));
        spec.shape = shape(*shard, "shard");
        spec.page_shape = shape(*page, "page");
        args.shard_spec = std::move(spec);
        args.layout = TensorMemoryLayout::HEIGHT_SHARDED;
    }
    if (dist) {
        const auto values = numbers(*dist, ',', 3, "dist");
        BufferDistributionSpec spec;
        spec.num_shards = values[0];
        for (std::uint64_t core = 0; core < values[1]; ++core) {
            spec.cores.push_back(CoreCoord{core % 8, core / 8});
        }
        spec.shard_pages = values[2];
        args.distribution_spec = std::move(spec);
        args.layout = args.shard_spec ? TensorMemoryLayout::HEIGHT_SHARDED : TensorMemoryLayout::ND_SHARDED;
    }
    if (layout) {
        args.layout = layout_of(*layout);
    }
    args.per_core = words.option("percore").value_or("0") == "1";
    const bool has_spec = args.shard_spec || args.distribution_spec;
    if (has_spec != tt::tt_metal::is_sharded(args.layout)) {
        throw ScriptError{"the layout and the specs do not go together"};
    }
    if ((args.shard_spec && args.shard_spec->grid.num_cores() == 0) ||
        (args.distribution_spec &&
         (args.distribution_spec->cores.empty() || args.distribution_spec->num_shards == 0))) {
        throw ScriptError{"a sharded buffer needs a core and a shard"};
    }
    return args;
}

std::optional<std::string> read_line() {
    std::string line;
    for (;;) {
        char byte = 0;
        const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return line.empty() ? std::nullopt : std::optional(line);
        }
        if (byte == '\n') {
            return line;
        }
        line += byte;
    }
}

}  // namespace standin
