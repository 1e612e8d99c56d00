"""Tools around a training: diagnostics, search, gradient check, nearest neighbours."""
