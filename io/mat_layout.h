/// The bones of a .mat file of version 5, checked before matio sees it.
#pragma once

#include "io/input_file.h"

namespace percept::io {

/// Walks every element of the file, nested ones too, and throws DataError unless each lies inside its parent and no
/// array says that it has more parts than its bytes can hold. matio asks for memory by those numbers, and takes a
/// broken element for the end of the file. `swapped`: the file has the other byte order.
void check_mat5_layout(const InputFile& input, bool swapped);

}  // namespace percept::io
