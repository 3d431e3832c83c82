"""A virtual environment for each peer, under build/peers, made when it is first needed.

python -m benchmarks.peers.environment kvpress llama_cpp
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "peers"
PEERS = ("kvpress", "llama_cpp")


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment; installs what its pins name, and again once they have changed."""
    pins, folder = HERE / f"{peer}.txt", BUILD / peer
    stamp, python = folder / "installed", folder / "bin" / "python"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {peer} in {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(pins)], check=True)
    stamp.write_text(wanted)
    return python


def main(peers: list[str]) -> None:
    for peer in peers or PEERS:
        if peer not in PEERS:
            sys.exit(f"{peer!r} is no peer; there are {', '.join(PEERS)}")
        print(python_of(peer))


if __name__ == "__main__":
    main(sys.argv[1:])
