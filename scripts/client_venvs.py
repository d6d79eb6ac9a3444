"""Make the clients of `make conformance`: an environment each in .clients/, and node's packages.

Standard library only. What is there and has the pinned versions is left alone.
"""

import hashlib
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".clients"
VERSIONS = ROOT / "tests" / "conformance" / "clients" / "versions.toml"
NODE = ROOT / "tests" / "conformance" / "node"
STAMP = "tunery-state"
AT_ONCE = 2


def main() -> None:
    """Make what is missing."""
    clients: dict[str, dict[str, Any]] = tomllib.loads(VERSIONS.read_text())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: make_environment(name, clients[name]["packages"]), clients))
    make_node()


def make_environment(name: str, packages: list[str]) -> None:
    """Make a virtual environment with these packages and what they need."""
    folder = FOLDER / name
    wanted = f"{sys.version}\n{packages}"
    if _has(folder, wanted):
        return
    print(f"Installing the client {name}: {', '.join(packages)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True)
    (folder / STAMP).write_text(wanted)


def make_node() -> None:
    """Install node's packages as the lock file says, if there is a node."""
    if shutil.which("npm") is None:
        print("No npm found: the JavaScript client will not be tried.", flush=True)
        return
    folder = NODE / "node_modules"
    wanted = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()
    if _has(folder, wanted):
        return
    print("Installing the JavaScript client", flush=True)
    command = ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=NODE, check=True)
    (folder / STAMP).write_text(wanted)


def _has(folder: Path, wanted: str) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text() == wanted


if __name__ == "__main__":
    main()
