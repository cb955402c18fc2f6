#include "device.hpp"

namespace tt::tt_metal {

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
    sub_devices_(sub_devices.begin(), sub_devices.end()), device_(device) {
    allocators_.push_back(std::move(allocator));
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

SubDeviceManagerTracker::SubDeviceManagerTracker(
    IDevice* device, std::unique_ptr<AllocatorImpl>&& global_allocator, std::span<const SubDevice> sub_devices) :
    owned_(std::make_unique<SubDeviceManager>(device, std::move(global_allocator), sub_devices)),
    default_manager_(owned_.get()) {}

SubDeviceManagerTracker::~SubDeviceManagerTracker() = default;
SubDeviceManager* SubDeviceManagerTracker::get_default_sub_device_manager() const { return default_manager_; }

}  // namespace tt::tt_metal
