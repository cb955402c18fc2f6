#include "device.hpp"

namespace tt::tt_metal::distributed {
namespace {
// Process-wide, and apart from the chip ids: a mesh and a chip can have the same id.
std::atomic<ChipId> next_mesh_id = 0;
}  // namespace

MeshDeviceImpl::MeshDeviceImpl(std::vector<std::shared_ptr<Device>> chips) :
    chips_(std::move(chips)), mesh_id_(next_mesh_id.fetch_add(1)) {
    for (const auto& chip : chips_) {
        devices_.push_back(chip.get());
    }
}

void MeshDeviceImpl::initialize(IDevice* mesh) {
    const SubDevice whole{};
    tracker_ = std::make_unique<SubDeviceManagerTracker>(
        mesh, std::make_unique<L1BankingAllocator>(allocator_config(chips_.front()->arch())), std::span(&whole, 1));
}

MeshDeviceImpl::~MeshDeviceImpl() {}
Arch MeshDeviceImpl::arch() const { return chips_.front()->arch(); }
ChipId MeshDeviceImpl::id() const { return mesh_id_; }
ChipId MeshDeviceImpl::build_id() const { return chips_.front()->id(); }
std::uint8_t MeshDeviceImpl::num_hw_cqs() const { return 1; }
bool MeshDeviceImpl::is_initialized() const { return initialized_; }

bool MeshDeviceImpl::close() {
    // Takes the allocator with it: what opens next may get one at the same host address.
    tracker_.reset();
    initialized_ = false;
    return true;
}

const std::unique_ptr<AllocatorImpl>& MeshDeviceImpl::allocator_impl() const {
    if (tracker_ == nullptr) {
        throw_error("The mesh has been closed");
    }
    return tracker_->get_default_sub_device_manager()->allocator(SubDeviceId{0});
}

SubDeviceManagerTracker& MeshDeviceImpl::tracker() const {
    if (tracker_ == nullptr) {
        throw_error("The mesh has been closed");
    }
    return *tracker_;
}

std::vector<IDevice*> MeshDeviceImpl::get_devices() const { return devices_; }

std::vector<ChipId> MeshDeviceImpl::get_device_ids() const {
    std::vector<ChipId> ids;
    for (const IDevice* device : devices_) {
        ids.push_back(device->id());
    }
    return ids;
}

MeshDevice::MeshDevice(std::vector<std::shared_ptr<Device>> chips) :
    impl_(std::make_unique<MeshDeviceImpl>(std::move(chips))) {
    impl_->initialize(this);
}
MeshDevice::~MeshDevice() {}

// Through the base class: a virtual call, as in the real library.
namespace {
[[gnu::always_inline]] inline const IDevice& as_base(const std::unique_ptr<MeshDeviceImpl>& impl) { return *impl; }
}  // namespace

Arch MeshDevice::arch() const { return as_base(impl_).arch(); }
ChipId MeshDevice::id() const { return as_base(impl_).id(); }
ChipId MeshDevice::build_id() const { return as_base(impl_).build_id(); }
std::uint8_t MeshDevice::num_hw_cqs() const { return as_base(impl_).num_hw_cqs(); }
bool MeshDevice::is_initialized() const { return as_base(impl_).is_initialized(); }
bool MeshDevice::close() { return impl_->close(); }
const std::unique_ptr<AllocatorImpl>& MeshDevice::allocator_impl() const { return as_base(impl_).allocator_impl(); }
std::vector<IDevice*> MeshDevice::get_devices() const { return impl_->get_devices(); }
SubDeviceManagerTracker& MeshDevice::sub_devices() const { return impl_->tracker(); }

AllocatorImpl* MeshDevice::sub_device_allocator(SubDeviceId sub_device) const {
    return sub_devices().get_active_sub_device_manager()->allocator(sub_device).get();
}

SubDeviceManagerId MeshDevice::active_sub_device_manager() const {
    return sub_devices().get_active_sub_device_manager()->id();
}
std::vector<ChipId> MeshDevice::get_device_ids() const { return impl_->get_device_ids(); }

std::shared_ptr<MeshDevice> MeshDevice::create_submesh(std::size_t first, std::size_t count) const {
    const auto& chips = impl_->chips();
    if (count == 0 || first > chips.size() || count > chips.size() - first) {
        throw_error("The mesh has no such chips");
    }
    const auto begin = chips.begin() + static_cast<std::ptrdiff_t>(first);
    return std::make_shared<MeshDevice>(
        std::vector<std::shared_ptr<Device>>(begin, begin + static_cast<std::ptrdiff_t>(count)));
}

}  // namespace tt::tt_metal::distributed
