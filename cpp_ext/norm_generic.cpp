#define ISA generic
#define ISA_NAME "scalar"
#include "norm_kernels.hpp"
