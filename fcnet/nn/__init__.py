"""Networks: parameters, layers, the network itself, what it is trained for, transfer."""
