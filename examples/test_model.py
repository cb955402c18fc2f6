"""Tests that limit device memory.

    pip install ./python pytest
    pytest examples/test_model.py --ttmem --ttmem-attach

Without --ttmem-attach a ttmem has to be there: `sudo ttmem serve`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ttmem as ttmem_package
import ttnn


@pytest.fixture(scope="module")
def device() -> Iterator[ttnn.MeshDevice]:
    """A chip."""
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, 1))
    yield device
    ttnn.close_mesh_device(device)


def ones(device: ttnn.MeshDevice, memory: ttnn.MemoryConfig = ttnn.DRAM_MEMORY_CONFIG) -> ttnn.Tensor:
    """A tensor of 2 MiB."""
    return ttnn.ones(
        (1024, 1024), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device, memory_config=memory
    )


@pytest.mark.ttmem_limit(dram="16 MiB", l1="80%")
@pytest.mark.ttmem_no_leaks
def test_a_sum_stays_small(device: ttnn.MeshDevice) -> None:
    """Whatever it allocates is gone when it returns."""
    first = ones(device)
    ttnn.add(first, first)


def test_by_hand(device: ttnn.MeshDevice, ttmem: ttmem_package.Monitor) -> None:
    """The fixture is a `ttmem.Monitor` of this process."""
    before = ttmem.query_device(0).dram
    kept = ones(device, ttnn.DRAM_MEMORY_CONFIG)
    after = ttmem.query_device(0).dram
    assert after.buffers == before.buffers + 1
    ttnn.deallocate(kept)
    assert ttmem.query_device(0).dram.used == before.used
