"""Tests that use too much, or leave something: run by tests/tests/readers_real.rs, which expects what fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ttnn

KEPT = []


@pytest.fixture(scope="module")
def device() -> Iterator[ttnn.MeshDevice]:
    """Both chips."""
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, 2))
    yield device
    KEPT.clear()
    ttnn.close_mesh_device(device)


def ones(device: ttnn.MeshDevice, memory: ttnn.MemoryConfig = ttnn.DRAM_MEMORY_CONFIG) -> ttnn.Tensor:
    """A tensor of 2 MiB: 2,113,536 bytes of DRAM on each chip."""
    return ttnn.ones(
        (1024, 1024), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device, memory_config=memory
    )


@pytest.mark.ttmem_limit(dram=2113535)
def test_one_byte_too_much(device: ttnn.MeshDevice) -> None:
    """Fails although nothing is left: the peak counts."""
    ttnn.deallocate(ones(device))


@pytest.mark.ttmem_limit(dram=2113536)
@pytest.mark.ttmem_no_leaks
def test_just_enough(device: ttnn.MeshDevice) -> None:
    """Passes."""
    ttnn.deallocate(ones(device))


@pytest.mark.ttmem_limit(l1="1%")
def test_too_much_of_l1(device: ttnn.MeshDevice) -> None:
    """Fails: 2 MiB are more than a hundredth."""
    ttnn.deallocate(ones(device, ttnn.L1_MEMORY_CONFIG))


@pytest.mark.ttmem_no_leaks
def test_leaves_something(device: ttnn.MeshDevice) -> None:
    """Fails."""
    KEPT.append(ones(device))


@pytest.mark.ttmem_no_leaks(allow="2 MiB")
def test_may_leave_something(device: ttnn.MeshDevice) -> None:
    """Passes."""
    KEPT.append(ones(device))


@pytest.mark.ttmem_no_leaks
def test_fails_by_itself(device: ttnn.MeshDevice) -> None:
    """Fails by its own assertion."""
    kept = ones(device)
    assert kept is None
