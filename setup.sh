#!/bin/sh
# Makes a virtual environment that holds this project, and the system parts that it needs.
#
#     sh setup.sh .venv dev                       with the extra `dev` of pyproject.toml
#     PYTHON=python3.12 sh setup.sh .venv dev     with a certain Python
#
# As root on Debian or Ubuntu it installs missing system packages; elsewhere it says which ones are missing.
set -eu

folder=$1
extra=$2

fail() {
    printf '%s\n' "setup: $1" >&2
    exit 1
}

# Whether missing packages can be installed here.
is_debian_root() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1
}

apt_install() {
    echo "setup: installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the Python to use: $PYTHON if that is given, else the first that is new enough.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

describe_python() {
    "${PYTHON:-python3}" -c 'import sys; print("%s is Python %d.%d" % ((sys.executable,) + sys.version_info[:2]))' \
        2>/dev/null || echo "${PYTHON:-python3} was not found"
}

make_environment() {
    python=$(find_python)
    if [ -z "$python" ] && [ -z "${PYTHON:-}" ] && is_debian_root && apt_install python3 python3-venv; then
        python=$(find_python)
    fi
    [ -n "$python" ] ||
        fail "$(describe_python), and Tabula needs 3.11 or newer: install one and name it, as in make PYTHON=python3.12 test"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if ! is_debian_root || ! apt_install "$package"; then
            fail "$python lacks the module venv: install it (Debian and Ubuntu: sudo apt-get install $package)"
        fi
    fi
    "$python" -m venv "$folder"
}

# The environment's own Python; Windows keeps it elsewhere.
environment_python() {
    if [ -d "$folder/Scripts" ]; then echo "$folder/Scripts/python"; else echo "$folder/bin/python"; fi
}

# Whether WebGPU finds a device, a software renderer included. macOS and Windows bring Metal and DX12.
has_gpu_driver() {
    [ "$(uname -s)" != Linux ] ||
        "$(environment_python)" -c \
            'from trainer.devices.native import list_adapters as a; raise SystemExit(not a())' 2>/dev/null
}

check_gpu_driver() {
    if has_gpu_driver; then return; fi
    echo "setup: no Vulkan driver was found; mesa-vulkan-drivers brings one, for GPUs and for the CPU" >&2
    if is_debian_root && apt_install mesa-vulkan-drivers libvulkan1 && has_gpu_driver; then return; fi
    cat >&2 <<'END'
setup: without one, only `--device reference` runs. To install it:
    Debian, Ubuntu   sudo apt-get install mesa-vulkan-drivers libvulkan1
    Fedora           sudo dnf install mesa-vulkan-drivers vulkan-loader
    Arch             sudo pacman -S vulkan-swrast vulkan-icd-loader
END
}

# The tests of the page drive a Chromium: the system's, or the one that Playwright downloads.
has_chromium() {
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null 2>&1; then return 0; fi
    done
    "$(environment_python)" - 2>/dev/null <<'END'
from pathlib import Path
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    raise SystemExit(not Path(playwright.chromium.executable_path).exists())
END
}

check_chromium() {
    if has_chromium; then return; fi
    if is_debian_root && apt_install chromium && has_chromium; then return; fi
    cat >&2 <<END
setup: no Chromium was found; the tests of the page need one. To install it:
    Debian           sudo apt-get install chromium
    elsewhere        $(environment_python) -m playwright install chromium
END
}

if ! is_new_enough "$(environment_python)"; then
    make_environment
fi
echo "setup: installing what pyproject.toml names into $folder"
"$(environment_python)" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
check_gpu_driver
check_chromium
