"""The kernels as text in LLVM's intermediate language; strides are constants, so no optimisation pass is needed."""
