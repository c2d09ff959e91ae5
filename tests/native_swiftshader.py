"""Trains natively on the software renderer that Chromium brings; JSON of a job in, JSON of the run out.

Run as a process of its own, because a Vulkan driver is chosen once a process; `train_natively` does that.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pages.device_training import train

from trainer.devices import open_device

DRIVER = "vk_swiftshader_icd.json"


def train_natively(job: dict[str, Any], browser: str) -> dict[str, Any]:
    """The result of `job` on the SwiftShader that lies beside Chromium's executable, `browser`.

    VK_ICD_FILENAMES is what older Vulkan loaders call VK_DRIVER_FILES.
    """
    driver = str(driver_beside(Path(browser)))
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "VK_DRIVER_FILES": driver, "VK_ICD_FILENAMES": driver},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def driver_beside(browser: Path) -> Path:
    """SwiftShader's manifest. Debian's /usr/bin/chromium is a script, whose program lies in a lib folder."""
    folders = (browser.resolve().parent, Path("/usr/lib/chromium"), Path("/usr/lib/chromium-browser"))
    found = [folder / DRIVER for folder in folders if (folder / DRIVER).exists()]
    assert found, f"no {DRIVER} in {', '.join(map(str, folders))}"
    return found[0]


async def main() -> None:
    device = await open_device()
    json.dump(await train(device, json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
