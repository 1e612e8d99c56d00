"""Other texts' names over fcnet's own code."""
