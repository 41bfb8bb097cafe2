"""The operators on CPUs: inner loops compiled by numba, rows shared out among threads.

Why numba: it comes as wheels for every platform torch has wheels for, brings its own LLVM, and compiles for the
very processor it runs on. ``torch.compile`` needs a C++ compiler on the user's machine for its CPU code.
"""

import numba

if numba.config.DISABLE_JIT:  # for debuggers and coverage; vector registers exist in compiled loops only
    raise ImportError('NUMBA_DISABLE_JIT is set, and the loops exist compiled only')
