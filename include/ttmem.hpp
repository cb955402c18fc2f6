// ttmem.hpp - what a process holds of the memory of its Tenstorrent devices, as ttmem counts it.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// ttmem.h for C++17 and newer; docs/c.md explains both.
//
//     ttmem::Monitor monitor;                          // of this process
//     auto before = monitor.query_device_now(0);
//     run_model();
//     auto after = monitor.query_device_now(0);
//     EXPECT_LE(after.dram.used - before.dram.used, 64 << 20);
//
// Rules
// - What fails throws ttmem::Error: code() is a ttmem_result, what() says what failed, on what, and
//   what to do. Old numbers (TTMEM_STALE, TTMEM_ENDED) are never returned as if they were current.
// - A figure that is not known cannot be used by mistake: reading it throws ttmem::Unknown.
// - One thread at a time uses a Monitor. A Counter may be read by any.
#ifndef TTMEM_HPP
#define TTMEM_HPP

#include "ttmem.h"

#include <cstdint>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace ttmem {

/// Why a call failed.
class Error : public std::runtime_error {
public:
    Error(int code, const std::string& what) : std::runtime_error(what), code_(code) {}

    /// A ttmem_result.
    int code() const noexcept { return code_; }

private:
    int code_;
};

/// A figure was used that is not known.
class Unknown : public std::runtime_error {
public:
    Unknown() : std::runtime_error("this figure is not known to ttmem: ask known() first, or process().inexact_because") {}
};

namespace detail {

/// Compares numbers as numbers, whatever their signs: -1, 0 or 1.
template <typename L, typename R>
constexpr int compare(L left, R right) noexcept {
    if (std::is_signed<L>::value && left < L{}) {
        if (!std::is_signed<R>::value || !(right < R{})) {
            return -1;
        }
        const auto l = static_cast<std::intmax_t>(left);
        const auto r = static_cast<std::intmax_t>(right);
        return l < r ? -1 : l > r ? 1 : 0;
    }
    if (std::is_signed<R>::value && right < R{}) {
        return 1;
    }
    const auto l = static_cast<std::uintmax_t>(left);
    const auto r = static_cast<std::uintmax_t>(right);
    return l < r ? -1 : l > r ? 1 : 0;
}

template <typename T>
using IfNumber = typename std::enable_if<std::is_integral<T>::value && !std::is_same<T, bool>::value, bool>::type;

}  // namespace detail

/// Comparisons of a type that has value(), with itself and with any integer.
#define TTMEM_COMPARISONS_(TYPE)                                                                                      \
    friend bool operator==(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) == 0; }       \
    friend bool operator!=(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) != 0; }       \
    friend bool operator<(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) < 0; }         \
    friend bool operator<=(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) <= 0; }       \
    friend bool operator>(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) > 0; }         \
    friend bool operator>=(const TYPE& l, const TYPE& r) { return detail::compare(l.value(), r.value()) >= 0; }       \
    TTMEM_COMPARISON_(TYPE, ==)                                                                                       \
    TTMEM_COMPARISON_(TYPE, !=)                                                                                       \
    TTMEM_COMPARISON_(TYPE, <)                                                                                        \
    TTMEM_COMPARISON_(TYPE, <=)                                                                                       \
    TTMEM_COMPARISON_(TYPE, >)                                                                                        \
    TTMEM_COMPARISON_(TYPE, >=)

#define TTMEM_COMPARISON_(TYPE, OP)                                                                                   \
    template <typename N, detail::IfNumber<N> = true>                                                                 \
    friend bool operator OP(const TYPE& l, N r) {                                                                     \
        return detail::compare(l.value(), r) OP 0;                                                                    \
    }                                                                                                                 \
    template <typename N, detail::IfNumber<N> = true>                                                                 \
    friend bool operator OP(N l, const TYPE& r) {                                                                     \
        return detail::compare(l, r.value()) OP 0;                                                                    \
    }

#define TTMEM_MIXED_(OP)                                                                                              \
    friend bool operator OP(const Figure& l, const Change& r) { return detail::compare(l.value(), r.value()) OP 0; }  \
    friend bool operator OP(const Change& l, const Figure& r) { return detail::compare(l.value(), r.value()) OP 0; }

/// The difference of two figures: bytes, or a count. Compares with any integer.
class Change {
public:
    constexpr explicit Change(std::int64_t value) noexcept : value_(value) {}

    constexpr std::int64_t value() const noexcept { return value_; }
    constexpr operator std::int64_t() const noexcept { return value_; }

    TTMEM_COMPARISONS_(Change)

    friend std::ostream& operator<<(std::ostream& out, const Change& change) { return out << change.value_; }

private:
    std::int64_t value_;
};

/// A figure, bytes or a count, that may not be known. Whatever needs its value throws Unknown then.
class Figure {
public:
    constexpr explicit Figure(std::uint64_t word) noexcept : word_(word) {}

    constexpr bool known() const noexcept { return word_ != TTMEM_UNKNOWN; }

    std::uint64_t value() const {
        if (!known()) {
            throw Unknown();
        }
        return word_;
    }

    constexpr std::uint64_t value_or(std::uint64_t other) const noexcept { return known() ? word_ : other; }

    operator std::uint64_t() const { return value(); }

    friend Change operator-(const Figure& later, const Figure& earlier) {
        // Both are below 2^63 wherever there is less memory than that.
        return Change(static_cast<std::int64_t>(later.value() - earlier.value()));
    }

    TTMEM_COMPARISONS_(Figure)
    TTMEM_MIXED_(==)
    TTMEM_MIXED_(!=)
    TTMEM_MIXED_(<)
    TTMEM_MIXED_(<=)
    TTMEM_MIXED_(>)
    TTMEM_MIXED_(>=)

    friend std::ostream& operator<<(std::ostream& out, const Figure& figure) {
        if (figure.known()) {
            return out << figure.word_;
        }
        return out << "unknown";
    }

private:
    std::uint64_t word_;
};

#undef TTMEM_COMPARISONS_
#undef TTMEM_COMPARISON_
#undef TTMEM_MIXED_

/// The memory of one buffer type on one chip; the figures are those of ttmem_pool.
struct Pool {
    bool present;             ///< the chip has this pool
    Figure buffers;           ///< live buffers
    Figure logical_bytes;     ///< sum of their Buffer::size()
    Figure used;              ///< bytes that they take of the pool
    Figure peak_used;         ///< highest `used` since the attach, bytes
    Figure capacity;          ///< bytes
    Figure allocations;       ///< seen since the attach
    Figure frees;             ///< seen since the attach, of buffers whose allocation was seen
    Figure pre_attach_frees;  ///< seen since the attach, of buffers from before it
    Figure bank_bytes;        ///< what the live buffers take of each bank, bytes
    Figure banks;             ///< banks of the pool

    explicit Pool(const ttmem_pool& pool)
        : present(pool.present == 1),
          buffers(pool.buffers),
          logical_bytes(pool.logical_bytes),
          used(pool.used),
          peak_used(pool.peak_used),
          capacity(pool.capacity),
          allocations(pool.allocations),
          frees(pool.frees),
          pre_attach_frees(pool.pre_attach_frees),
          bank_bytes(pool.bank_bytes),
          banks(pool.banks) {}
};

/// What lies between the highest circular buffer and the lowest tensor in the L1 of a chip's cores.
class Headroom {
public:
    explicit Headroom(const ttmem_device& device)
        : state_(device.headroom_state <= TTMEM_HEADROOM_CLASH ? static_cast<ttmem_headroom>(device.headroom_state)
                                                               : TTMEM_HEADROOM_UNKNOWN),
          bytes_(device.headroom_bytes) {}

    ttmem_headroom state() const noexcept { return state_; }
    bool known() const noexcept { return state_ != TTMEM_HEADROOM_UNKNOWN; }

    /// Negative if they clash. Throws Unknown if it is not known.
    std::int64_t bytes() const {
        if (!known()) {
            throw Unknown();
        }
        return bytes_;
    }

private:
    ttmem_headroom state_;
    std::int64_t bytes_;
};

/// One chip; all numbers but `exact` are of one instant.
struct Device {
    int chip;                         ///< tt-metal's id
    bool exact;                       ///< ttmem vouches for the totals
    Pool dram;
    Pool l1;
    Pool system_memory;
    Pool l1_small;
    Pool trace;
    Figure circular_core_bytes;       ///< of all programs, the most that circular buffers take of a core
    Figure circular_peak_core_bytes;  ///< highest of that
    Figure core_capacity_bytes;       ///< what a core's L1 has for buffers
    Headroom headroom;                ///< between circular buffers and tensors in L1
    Figure circular_programs;         ///< programs seen that keep circular buffers on this chip
    Figure circular_buffers;          ///< their circular and dataflow buffers with memory of their own

    explicit Device(const ttmem_device& device)
        : chip(static_cast<int>(device.chip)),
          exact(device.exact == 1),
          dram(device.dram),
          l1(device.l1),
          system_memory(device.system_memory),
          l1_small(device.l1_small),
          trace(device.trace),
          circular_core_bytes(device.circular_core_bytes),
          circular_peak_core_bytes(device.circular_peak_core_bytes),
          core_capacity_bytes(device.core_capacity_bytes),
          headroom(device),
          circular_programs(device.circular_programs),
          circular_buffers(device.circular_buffers) {}
};

/// What ttmem says of the process and of its own numbers.
struct Process {
    std::uint64_t pid;            ///< as ttmem sees it
    std::uint64_t agent_pid;      ///< the ttmem that writes
    std::uint64_t time_ns;        ///< every event up to this time (CLOCK_MONOTONIC) is in the numbers
    ttmem_state state;            ///< what has become of it
    bool exact;                   ///< every total is known to equal the allocator's own
    std::string inexact_because;  ///< why not
    Figure lost;                  ///< records that could not be delivered
    Figure anomalies;             ///< events that disagreed with what was known
    Figure failures;              ///< allocations that failed for want of memory
    std::string command;          ///< its command line
    std::string library;          ///< its tt-metal library
    std::string build_id;         ///< that library's build id, hexadecimal
};

/// One figure of one pool, to be read as often as one likes at the cost of a load. It stays readable
/// after its Monitor is gone; whether somebody still writes it is for Monitor::check() to say.
class Counter {
public:
    Figure read() const noexcept { return Figure(ttmem_load(word_)); }

private:
    friend class Monitor;
    Counter(std::shared_ptr<const ttmem_table> table, const std::uint64_t* word)
        : table_(std::move(table)), word_(word) {}

    std::shared_ptr<const ttmem_table> table_;
    const std::uint64_t* word_;
};

/// The open table of one process. If its ttmem has ended and another one is there, that is used.
class Monitor {
public:
    /// `pid` as the caller sees it, 0 for itself; `directory` as for ttmem_open().
    explicit Monitor(std::int64_t pid = 0, const std::string& directory = std::string()) : table_(fresh()) {
        check(ttmem_open(table_.get(), pid, directory.empty() ? nullptr : directory.c_str()));
    }

    /// All numbers of a chip at one instant; while allocations flow some 5 ms behind, more where the
    /// processor is busy.
    Device query_device(int chip = 0) {
        ttmem_device device;
        check(retried([&] { return ttmem_query_device(table_.get(), chip, &device); }));
        return Device(device);
    }

    /// The same with every event from before this call.
    Device query_device_now(int chip = 0, int timeout_ms = 1000) {
        sync(timeout_ms);
        return query_device(chip);
    }

    /// Has ttmem bring the table up to date: then it holds every event from before this call.
    void sync(int timeout_ms = 1000) {
        check(retried([&] { return ttmem_sync(table_.get(), timeout_ms); }));
    }

    /// What ttmem says of the process. Also of one that has ended; throws only if ttmem was killed.
    Process process() {
        ttmem_process found;
        const int result = retried([&] { return ttmem_query_process(table_.get(), &found); });
        if (result != TTMEM_ENDED) {
            check(result);
        }
        return Process{found.pid,
                       found.agent_pid,
                       found.time_ns,
                       found.state < TTMEM_UNWATCHED ? static_cast<ttmem_state>(found.state) : TTMEM_UNWATCHED,
                       found.exact == 1,
                       found.inexact_because,
                       Figure(found.lost_ring_full + found.lost_read_fault),
                       Figure(found.anomalies),
                       Figure(found.failures),
                       found.command,
                       found.library,
                       found.build_id};
    }

    /// The ids of the chips that the process has used.
    std::vector<int> devices() {
        std::vector<int> chips;
        for (std::uint64_t place = 0; place < ttmem_chips(table_.get()); ++place) {
            chips.push_back(static_cast<int>(ttmem_chip_at(table_.get(), place)));
        }
        return chips;
    }

    /// One figure (TTMEM_POOL_...) of one pool.
    Counter counter(int chip, ttmem_type type, unsigned figure) {
        const std::uint64_t* const word = ttmem_counter(table_.get(), chip, type, figure);
        if (word == nullptr) {
            throw Error(TTMEM_NO_DEVICE, table_->error);
        }
        return Counter(table_, word);
    }

    /// Throws if nobody writes the numbers.
    void check() { check(ttmem_freshness(table_.get())); }

private:
    static std::shared_ptr<ttmem_table> fresh() {
        return std::shared_ptr<ttmem_table>(new ttmem_table(), [](ttmem_table* table) {
            ttmem_close(table);
            delete table;
        });
    }

    /// Asks once more if a new ttmem is there in place of an old one.
    template <typename Ask>
    int retried(const Ask& ask) {
        const int result = ask();
        if (result != TTMEM_STALE && result != TTMEM_ENDED && result != TTMEM_TORN) {
            return result;
        }
        // In a handle of its own: counters keep the older one.
        std::shared_ptr<ttmem_table> newer = fresh();
        *newer = *table_;
        newer->words = nullptr;
        newer->start_ticks = ttmem_at_(table_.get(), TTMEM_HEADER_START_TICKS);
        if (ttmem_reopen(newer.get()) != TTMEM_OK) {
            return result;
        }
        table_.swap(newer);
        return ask();
    }

    void check(int result) const {
        if (result != TTMEM_OK) {
            throw Error(result, table_->error);
        }
    }

    std::shared_ptr<ttmem_table> table_;
};

}  // namespace ttmem

#endif  // TTMEM_HPP
