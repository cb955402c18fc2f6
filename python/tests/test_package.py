"""The package as it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def test_it_installs_with_its_types_and_its_plugin(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "tests", "*.egg-info", ".*")
    shutil.copytree(Path(__file__).parents[1], source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    options = ["--no-build-isolation", "--no-deps", "-w", str(tmp_path), str(source)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("ttmem-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert "ttmem/py.typed" in names
        assert "ttmem/pytest_plugin.py" in names
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"ttmem = ttmem.pytest_plugin" in archive.read(points)
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        assert b"Requires-Dist" not in archive.read(metadata)
