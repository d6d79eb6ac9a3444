"""Make a virtual environment with tunery in it: `python3 scripts/setup.py .venv [--dev]`.

Standard library only, and nothing newer than Python 3.6 in it, so that an old Python gets as far
as the line that says so. A second run with nothing changed does nothing.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEEDED_GIB = {"cpu": 3, "cuda": 12}


def fail(message):
    """Say what is wrong in one line and stop."""
    sys.exit("setup: " + message)


def check_python():
    """Stop where this Python cannot make the environment."""
    if sys.version_info < (3, 11):
        fail(
            "Python {}.{} is too old; tunery needs 3.11 or newer. Try"
            " `make PYTHON=python3.12`.".format(*sys.version_info[:2])
        )
    try:
        import ensurepip  # noqa: F401 - only whether it is there
        import venv  # noqa: F401 - only whether it is there
    except ImportError:
        fail("Python's venv module is missing; install it, e.g. `apt install python3-venv`.")


def check_disk(torch):
    """Stop where the environment would not fit."""
    free = shutil.disk_usage(ROOT).free / 1024**3
    needed = NEEDED_GIB[torch]
    if free < needed:
        fail(
            "{} has {:.1f} GiB free; {} GiB are needed. Free some space.".format(ROOT, free, needed)
        )


def state(dev, torch):
    """Return what the environment depends on, as a digest."""
    digest = hashlib.sha256("{} {} {}".format(sys.version, dev, torch).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as handle:
            digest.update(handle.read())
    return digest.hexdigest()


def install_torch(pip, torch, cpu_index):
    """Install torch: the build that pip has at hand, else the CPU build of PyTorch's index."""
    with open(os.path.join(ROOT, "constraints.txt")) as handle:
        pin = next(line.strip() for line in handle if line.startswith("torch=="))
    if torch == "cuda":
        print("Installing {} with CUDA: about 3 GB to download the first time.".format(pin))
        subprocess.check_call(pip + [pin])
        return
    at_hand = subprocess.run(
        pip + ["--no-deps", "--no-index", pin], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if at_hand.returncode == 0:
        print("Installed {} from what pip had at hand.".format(pin))
        return
    print("Installing {}, CPU build: about 190 MB to download.".format(pin))
    where = [] if platform.system() != "Linux" else ["--index-url", cpu_index]
    if subprocess.call(pip + ["--no-deps"] + where + [pin]) != 0:
        fail("torch's CPU build could not be downloaded; is there a network? Then run it again.")


def main():
    """Make or update the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--torch", choices=sorted(NEEDED_GIB), default="cpu")
    parser.add_argument("--torch-cpu-index", required=True)
    options = parser.parse_args()
    check_python()
    folder = os.path.join(ROOT, options.folder)
    stamp = os.path.join(folder, ".tunery-state")
    wanted = state(options.dev, options.torch)
    if os.path.exists(stamp):
        with open(stamp) as handle:
            if handle.read() == wanted:
                return
    check_disk(options.torch)
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        subprocess.check_call([sys.executable, "-m", "venv", folder])
    # Modules are compiled when they are first imported: compiling them all takes half a minute.
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    install_torch(pip, options.torch, options.torch_cpu_index)
    print("Installing tunery and what it needs: about 60 MB to download the first time.")
    extras = "torch,data,postgres,examples,dev" if options.dev else "torch,examples"
    command = pip + ["--constraint", os.path.join(ROOT, "constraints.txt")]
    subprocess.check_call(command + ["--editable", "{}[{}]".format(ROOT, extras)])
    with open(stamp, "w") as handle:
        handle.write(wanted)


if __name__ == "__main__":
    main()
