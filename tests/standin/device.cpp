#include "device.hpp"

namespace tt::tt_metal {
namespace {
std::atomic<std::uint64_t> next_manager_id = 0;
}  // namespace

AllocatorConfig allocator_config(Arch arch) {
    const bool wormhole = arch == Arch::WORMHOLE;
    AllocatorConfig config;
    config.dram_alignment = config.trace_alignment = wormhole ? 32 : 64;
    config.l1_alignment = config.l1_small_alignment = 16;
    config.system_alignment = 64;
    const std::uint32_t dram_banks = wormhole ? 12 : 8;
    const std::uint32_t l1_banks = wormhole ? 64 : 130;
    const auto pool = [&](BufferType type) -> PoolConfig& { return config.pools[static_cast<std::size_t>(type)]; };
    pool(BufferType::DRAM) = {dram_banks, config.dram_alignment, wormhole ? 1'071'644'672U : 4'276'092'928U, 0x100040};
    pool(BufferType::L1) = {l1_banks, config.l1_alignment, wormhole ? 1'360'544U : 1'428'352U, 138'592};
    pool(BufferType::SYSTEM_MEMORY) = {1, config.system_alignment, 256U << 20, 0};
    pool(BufferType::L1_SMALL) = {l1_banks, config.l1_small_alignment, 32'768, 105'824};
    pool(BufferType::TRACE) = {dram_banks, config.trace_alignment, 1U << 20, wormhole ? 1'072'693'248U : 4'277'141'504U};
    for (PoolConfig& pool : config.pools) {
        pool.block_unit = wormhole ? 32 : 64;
    }
    return config;
}

Device::Device(ChipId chip, Arch arch) :
    id_(chip), arch_(arch), default_allocator_(std::make_unique<L1BankingAllocator>(allocator_config(arch))) {}
Device::~Device() {}
Arch Device::arch() const { return arch_; }
ChipId Device::build_id() const { return id_; }
std::uint8_t Device::num_hw_cqs() const { return 1; }
bool Device::is_initialized() const { return initialized_; }
const std::unique_ptr<AllocatorImpl>& Device::allocator_impl() const { return default_allocator_; }

bool Device::close() {
    default_allocator_->deallocate_buffers();
    initialized_ = false;
    return true;
}

SubDeviceManager::SubDeviceManager(
    IDevice* device, std::unique_ptr<AllocatorImpl>&& allocator, std::span<const SubDevice> sub_devices) :
    id_(next_manager_id.fetch_add(1)), sub_devices_(sub_devices.begin(), sub_devices.end()), device_(device) {
    allocators_.push_back(std::move(allocator));
}

SubDeviceManager::SubDeviceManager(
    std::span<const SubDevice> sub_devices, DeviceAddr local_l1_size, IDevice* device) :
    id_(next_manager_id.fetch_add(1)),
    local_l1_size_(local_l1_size),
    sub_devices_(sub_devices.begin(), sub_devices.end()),
    device_(device) {
    const AllocatorConfig& global = device->allocator_impl()->get_config();
    for (const SubDevice& sub_device : sub_devices_) {
        AllocatorConfig config = global;
        for (std::size_t type = 0; type < kBufferTypes; ++type) {
            config.pools[type].bank_size = 0;
        }
        // No DRAM of its own: what the firmware takes is subtracted all the same, and wraps around.
        PoolConfig& dram = config.pools[static_cast<std::size_t>(BufferType::DRAM)];
        dram.bank_size -= dram.base;
        PoolConfig& l1 = config.pools[static_cast<std::size_t>(BufferType::L1)];
        l1.banks = static_cast<std::uint32_t>(sub_device.cores);
        l1.bank_size = local_l1_size;
        allocators_.push_back(std::make_unique<L1BankingAllocator>(config));
    }
}

SubDeviceManager::~SubDeviceManager() {
    for (const auto& allocator : allocators_) {
        allocator->deallocate_buffers();
    }
}

const std::unique_ptr<AllocatorImpl>& SubDeviceManager::allocator(SubDeviceId sub_device) const {
    if (*sub_device >= sub_devices_.size()) {
        throw_error("SubDevice index out of bounds");
    }
    return allocators_[*sub_device];
}

bool SubDeviceManager::has_allocations() const {
    for (const auto& allocator : allocators_) {
        if (allocator->get_num_allocated_buffers() > 0) {
            return true;
        }
    }
    return false;
}

SubDeviceManagerTracker::SubDeviceManagerTracker(
    IDevice* device, std::unique_ptr<AllocatorImpl>&& global_allocator, std::span<const SubDevice> sub_devices) :
    device_(device),
    owned_(std::make_unique<SubDeviceManager>(device, std::move(global_allocator), sub_devices)),
    default_manager_(owned_.get()),
    active_(owned_.get()) {}

SubDeviceManagerTracker::~SubDeviceManagerTracker() = default;
SubDeviceManager* SubDeviceManagerTracker::get_default_sub_device_manager() const { return default_manager_; }

SubDeviceManagerId SubDeviceManagerTracker::create_sub_device_manager(
    std::span<const SubDevice> sub_devices, DeviceAddr local_l1_size) {
    auto manager = std::make_unique<SubDeviceManager>(sub_devices, local_l1_size, device_);
    const SubDeviceManagerId id = manager->id();
    managers_.emplace(*id, std::move(manager));
    return id;
}

void SubDeviceManagerTracker::load_sub_device_manager(SubDeviceManagerId id) {
    const auto found = managers_.find(*id);
    if (found == managers_.end() && *id != *default_manager_->id()) {
        throw_error("There is no such sub-device manager");
    }
    SubDeviceManager* const manager = found == managers_.end() ? default_manager_ : found->second.get();
    if (active_ != default_manager_ && active_->has_allocations()) {
        throw_error("Cannot switch sub-device managers while sub-devices still have local allocations");
    }
    const auto& global = default_manager_->allocator(SubDeviceId{0});
    global->reset_allocator_size(BufferType::L1);
    global->shrink_allocator_size(BufferType::L1, manager->local_l1_size(), true);
    active_ = manager;
}

void SubDeviceManagerTracker::remove_sub_device_manager(SubDeviceManagerId id) {
    const auto found = managers_.find(*id);
    if (found == managers_.end() || found->second.get() == active_) {
        throw_error("Cannot remove a sub-device manager that is loaded or not there");
    }
    managers_.erase(found);
}

}  // namespace tt::tt_metal
