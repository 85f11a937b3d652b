#define ISA generic
#define ISA_NAME "scalar"
#include "quantize_kernels.hpp"
