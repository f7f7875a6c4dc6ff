"""Sharpness-aware minimisation whose perturbation batch, randomness and state are explicit and exact.

Which optimiser comes from where. ``timm`` has LARS and LAMB right, up to defaults that ``large_batch`` sets.
``pytorch_optimizer`` 4.1 restores weights in place and resumes its SAM, but knows no perturbation batch, makes the
second forward pass of LookSAM at every step, draws new dropout masks in the second pass, and has no momentum, interval,
late or sub-batch perturbation and no gradient scaler; so the wrapper here is our own.

Read ``rules`` (the equations), then ``sharpness`` (one step), then what they use.
"""
