"""What a crash may cost: kills, failing file calls, flipped bits, cut and hostile files: `make crash-test`."""
