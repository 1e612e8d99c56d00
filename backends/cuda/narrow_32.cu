// The kernel of layers with 13 to 32 outputs (narrow.cu): apart, so that it is compiled at the same time as the others.

KERNEL(256) narrow_backward_32(BACKWARD_PARAMETERS) { narrow_backward<32>(BACKWARD_ARGUMENTS); }
