"""The one thing that pyproject.toml cannot say yet: an extension that may be missing.

`archive._kernel` is C over libcrypto, `archive._kernel_prepare` C alone.  Where they cannot be built (no compiler, no
headers of OpenSSL 3) the install goes on without them and the twin in Python runs: docs/adr/0041-native-kernel.md.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("archive._kernel", sources=["archive/_kernel.c"], libraries=["crypto"], optional=True),
        Extension("archive._kernel_prepare", sources=["archive/_kernel_prepare.c"], optional=True),
    ]
)
