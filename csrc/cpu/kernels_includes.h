// What the code of a path includes, read before the compiler's target is set: functions of these
// headers are shared by all paths and must run on every machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "../common/constants.h"
#include "../common/integers.h"
#include "../common/philox.h"
#include "../common/rbn_scoring.h"
#include "kernels.h"
#include "noise_field.h"
#include "philox_blocks.h"
#include "rbn_few.h"
#include "simd.h"
