"""The wave equation in one dimension: a leapfrog stencil that is learned as such, and comparison networks."""
