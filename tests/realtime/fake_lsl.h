/// The state of the fake liblsl (tests/realtime/fake_lsl.cpp).
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

struct FakeLsl {
  struct Sample {
    double stamp = 0;
    std::vector<double> values;
    std::string text;
  };
  struct Outlet {
    std::string name, type, source_id;
    int channels = 1, format = 1, generation = 0;
    double rate = 100;
    std::vector<std::string> labels;  ///< of its channels; ends with ""
    std::deque<Sample> samples;
  };
  std::mutex mutex;
  std::vector<Outlet> outlets;
  double correction_s = 0;    ///< what has to be added to an outlet's stamp
  double clock_offset_s = 0;  ///< steady clock minus the library's
  int correction_error = 0, open_error = 0, open_inlets = 0, measured = 0;
  bool refuse_inlets = false;
};
