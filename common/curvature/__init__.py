"""The curvature of a training loss at given weights: eigenvalues, trace, sharpness and the SAM edge of stability.

Symbols: w the p trainable parameters in one vector, L(w) the mean loss over n examples, g = ∇L(w), H = ∇²L(w),
ε a perturbation with ‖ε‖ <= rho, m the size of a micro-batch, η the learning rate, β the momentum.
"""
