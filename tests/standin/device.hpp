// Devices: one chip (Device) or several in lockstep behind one allocator (MeshDevice).
#pragma once

#include <memory>
#include <span>

#include "allocator.hpp"

namespace tt::tt_metal {

using ChipId = int;

enum class Arch : std::uint32_t { WORMHOLE = 1, BLACKHOLE = 2 };

/// The pools of one chip of that architecture.
AllocatorConfig allocator_config(Arch arch);

class SubDevice {
public:
    std::uint64_t cores = 0;
};

/// The order of the virtual functions counts: `id` is at vptr + 0x18, `is_initialized` at + 0x30,
/// as in every version of the real library.
class IDevice {
public:
    virtual ~IDevice() = default;
    virtual Arch arch() const = 0;
    virtual ChipId id() const = 0;
    virtual ChipId build_id() const = 0;
    virtual std::uint8_t num_hw_cqs() const = 0;
    virtual bool is_initialized() const = 0;
    virtual bool close() = 0;
    virtual const std::unique_ptr<AllocatorImpl>& allocator_impl() const = 0;
    /// That of a sub-device of the manager that is loaded, and which that is.
    virtual AllocatorImpl* sub_device_allocator(SubDeviceId) const { throw_error("A chip has no sub-devices"); }
    virtual SubDeviceManagerId active_sub_device_manager() const { return SubDeviceManagerId{0}; }
};

class SubDeviceManager {
public:
    SubDeviceManager(IDevice* device, std::unique_ptr<AllocatorImpl>&& allocator, std::span<const SubDevice> sub_devices);
    /// An allocator for each sub-device: `local_l1_size` bytes of L1 on each of its cores.
    SubDeviceManager(std::span<const SubDevice> sub_devices, DeviceAddr local_l1_size, IDevice* device);
    /// Closing a mesh ends here: deallocate_buffers(), then the allocator is destroyed.
    ~SubDeviceManager();
    const std::unique_ptr<AllocatorImpl>& allocator(SubDeviceId sub_device) const;
    const std::vector<std::unique_ptr<AllocatorImpl>>& allocators() const { return allocators_; }
    SubDeviceManagerId id() const { return id_; }
    DeviceAddr local_l1_size() const { return local_l1_size_; }
    bool has_allocations() const;

private:
    SubDeviceManagerId id_;
    DeviceAddr local_l1_size_ = 0;
    std::vector<SubDevice> sub_devices_;
    IDevice* device_;
    std::array<std::uint64_t, 11> spacer_{};
    std::vector<std::unique_ptr<AllocatorImpl>> allocators_;
};

class SubDeviceManagerTracker {
public:
    SubDeviceManagerTracker(
        IDevice* device, std::unique_ptr<AllocatorImpl>&& global_allocator, std::span<const SubDevice> sub_devices);
    ~SubDeviceManagerTracker();
    SubDeviceManager* get_default_sub_device_manager() const;
    SubDeviceManager* get_active_sub_device_manager() const { return active_; }
    SubDeviceManagerId create_sub_device_manager(std::span<const SubDevice> sub_devices, DeviceAddr local_l1_size);
    /// The default allocator gives the sub-devices' part of L1 away; throws while a sub-device of
    /// the manager that was loaded has buffers.
    void load_sub_device_manager(SubDeviceManagerId id);
    void remove_sub_device_manager(SubDeviceManagerId id);
    const std::map<std::uint64_t, std::unique_ptr<SubDeviceManager>>& managers() const { return managers_; }

private:
    std::array<std::uint64_t, 4> spacer_{};
    IDevice* device_;
    std::unique_ptr<SubDeviceManager> owned_;
    SubDeviceManager* default_manager_ = nullptr;
    SubDeviceManager* active_ = nullptr;
    std::map<std::uint64_t, std::unique_ptr<SubDeviceManager>> managers_;
};

class Device final : public IDevice {
public:
    Device(ChipId chip, Arch arch);
    ~Device() override;
    Arch arch() const override;
    // Header-only in the real library: no exported symbol, only the vtable leads to it.
    [[gnu::visibility("hidden")]] ChipId id() const override { return id_; }
    ChipId build_id() const override;
    std::uint8_t num_hw_cqs() const override;
    bool is_initialized() const override;
    bool close() override;
    const std::unique_ptr<AllocatorImpl>& allocator_impl() const override;

private:
    std::array<std::uint64_t, 3> spacer_{};
    bool initialized_ = true;
    ChipId id_;
    Arch arch_;
    std::array<std::uint64_t, 50> spacer_before_allocator_{};
    std::unique_ptr<AllocatorImpl> default_allocator_;
};

namespace distributed {

class MeshDeviceImpl;

class MeshDevice final : public IDevice, public std::enable_shared_from_this<MeshDevice> {
public:
    explicit MeshDevice(std::vector<std::shared_ptr<Device>> chips);
    ~MeshDevice() override;
    Arch arch() const override;
    ChipId id() const override;
    ChipId build_id() const override;
    std::uint8_t num_hw_cqs() const override;
    bool is_initialized() const override;
    bool close() override;
    const std::unique_ptr<AllocatorImpl>& allocator_impl() const override;
    std::vector<IDevice*> get_devices() const;
    std::vector<ChipId> get_device_ids() const;
    AllocatorImpl* sub_device_allocator(SubDeviceId sub_device) const override;
    SubDeviceManagerId active_sub_device_manager() const override;
    SubDeviceManagerTracker& sub_devices() const;
    /// A mesh over some of the same chips, with an allocator of its own.
    std::shared_ptr<MeshDevice> create_submesh(std::size_t first, std::size_t count) const;

private:
    std::uint64_t spacer_ = 0;
    std::unique_ptr<MeshDeviceImpl> impl_;
};

class MeshDeviceImpl : public IDevice {
public:
    explicit MeshDeviceImpl(std::vector<std::shared_ptr<Device>> chips);
    /// After construction, so that `mesh` leads to its chips when the tracker is built.
    void initialize(IDevice* mesh);
    ~MeshDeviceImpl() override;
    Arch arch() const override;
    ChipId id() const override;
    ChipId build_id() const override;
    std::uint8_t num_hw_cqs() const override;
    bool is_initialized() const override;
    bool close() override;
    const std::unique_ptr<AllocatorImpl>& allocator_impl() const override;
    std::vector<IDevice*> get_devices() const;
    std::vector<ChipId> get_device_ids() const;
    const std::vector<std::shared_ptr<Device>>& chips() const { return chips_; }
    SubDeviceManagerTracker& tracker() const;

private:
    std::vector<std::shared_ptr<Device>> chips_;
    std::array<std::uint64_t, 12> spacer_{};
    ChipId mesh_id_;
    bool initialized_ = true;
    std::uint64_t spacer_before_devices_ = 0;
    std::vector<IDevice*> devices_;
    std::array<std::uint64_t, 40> spacer_before_tracker_{};
    std::unique_ptr<SubDeviceManagerTracker> tracker_;
};

}  // namespace distributed
}  // namespace tt::tt_metal
