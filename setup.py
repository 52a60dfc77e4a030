"""The one part that is compiled, revtunnel/_pump*.c; setup.cfg has all else.

Without a C compiler or Python's headers, or with REVTUNNEL_NATIVE=no, the package is built without it: the
same program, slower (sockets/data_plane.py). With it one wheel serves Python 3.11 and later of this kind of
machine.
"""

import os
import sysconfig

from setuptools import Extension, setup

PUMP = Extension(
    "revtunnel._pump",
    [
        "revtunnel/_pump.c",
        "revtunnel/_pump_accept.c",
        "revtunnel/_pump_dials.c",
        "revtunnel/_pump_doors.c",
        "revtunnel/_pump_gates.c",
        "revtunnel/_pump_pairs.c",
        "revtunnel/_pump_stock.c",
        "revtunnel/_pump_table.c",
        "revtunnel/_pump_tls.c",
    ],
    depends=["revtunnel/_pump.h"],
    extra_compile_args=["-std=c11", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    py_limited_api=True,
    optional=True,
)
# Python without the GIL has no stable interface
wanted = os.environ.get("REVTUNNEL_NATIVE") != "no" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[PUMP] if wanted else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if wanted else {},
)
