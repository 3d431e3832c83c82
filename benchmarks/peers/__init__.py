"""Other toolkits, measured beside ours: each in a process and a virtual environment of its own.

A peer's file (`kvpress_snapkv.py`, `llama_cpp_full.py`) runs in that environment and never imports farspan; it reads
the same weights from a folder and answers requests, one JSON line each (`child.py`), that `process.py` sends. What is
installed stands beside it (`kvpress.txt`, `llama_cpp.txt`), every version pinned.
"""
