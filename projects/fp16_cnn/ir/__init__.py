"""The kernels as text in LLVM's intermediate language: every stride is a constant, so no optimisation pass is needed."""
