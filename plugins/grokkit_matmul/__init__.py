"""The product of matrices: bilinear algorithms, discovered and proved, and a runtime that is driven by them."""
