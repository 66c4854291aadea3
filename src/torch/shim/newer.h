// Operators of a newer torch than this libtorch.
#pragma once

namespace medcam {

// Makes operators known that a newer torch writes into files though the network may never run them.
// Does nothing when called again, or where libtorch knows them by itself.
void declare_newer_operators();

}  // namespace medcam
