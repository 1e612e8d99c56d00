"""What fcnet's kernels cost on each device: `python -m benchmarks.run`. Not installed with the package."""
