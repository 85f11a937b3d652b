#define ISA avx2
#define ISA_NAME "avx2"
#include "norm_kernels.hpp"
