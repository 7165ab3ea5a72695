/// A library without any function of liblsl.
extern "C" int nothing_of_lsl() { return 0; }
