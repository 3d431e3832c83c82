"""The C++ kernels: built where there is a compiler, left out where there is none. Everything else: pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(str(path) for path in Path("native").glob("*.cpp"))
HEADERS = sorted(str(path) for path in Path("native").glob("*.[hi]*"))

setup(
    ext_modules=[
        Extension(
            "farspan._native",  # no Python module: a plain C interface, loaded by ctypes
            SOURCES,
            depends=HEADERS,
            language="c++",
            # exceptions of floating point are never looked at; believing that they might be keeps loops scalar
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-fno-trapping-math",
                "-Wno-maybe-uninitialized",
                "-Wno-uninitialized",
            ],
            extra_link_args=["-lpthread"],
            optional=True,
        )
    ]
)
