/// Lab Streaming Layer's own library, loaded when it is needed: percept is built without it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace percept {

/// The functions of liblsl's C interface that percept calls. Handles are opaque pointers.
struct LslLibrary {
  using Info = void*;
  using Inlet = void*;
  using Outlet = void*;
  using Xml = void*;
  static constexpr int kFloat32 = 1, kDouble64 = 2, kString = 3, kInt32 = 4, kInt16 = 5, kInt8 = 6, kInt64 = 7;
  static constexpr int kTimeout = -1, kLost = -2;

  std::int32_t (*library_version)();
  double (*local_clock)();
  std::int32_t (*resolve_bypred)(Info* found, std::uint32_t room, const char* predicate, std::int32_t minimum,
                                 double timeout);
  Info (*create_streaminfo)(const char* name, const char* type, std::int32_t channels, double rate, std::int32_t format,
                            const char* source_id);
  void (*destroy_streaminfo)(Info);
  const char* (*get_name)(Info);
  const char* (*get_type)(Info);
  std::int32_t (*get_channel_count)(Info);
  double (*get_nominal_srate)(Info);
  std::int32_t (*get_channel_format)(Info);
  const char* (*get_source_id)(Info);
  const char* (*get_hostname)(Info);
  Xml (*get_desc)(Info);
  Xml (*child)(Xml, const char* name);
  Xml (*next_sibling)(Xml);
  std::int32_t (*empty)(Xml);
  const char* (*child_value_n)(Xml, const char* name);
  Xml (*append_child)(Xml, const char* name);
  Xml (*append_child_value)(Xml, const char* name, const char* value);
  Inlet (*create_inlet)(Info, std::int32_t buffer_s, std::int32_t chunk, std::int32_t recover);
  void (*destroy_inlet)(Inlet);
  Info (*get_fullinfo)(Inlet, double timeout, std::int32_t* error);
  void (*open_stream)(Inlet, double timeout, std::int32_t* error);
  double (*time_correction_ex)(Inlet, double* remote, double* uncertainty, double timeout, std::int32_t* error);
  double (*pull_sample_f)(Inlet, float* values, std::int32_t room, double timeout, std::int32_t* error);
  double (*pull_sample_d)(Inlet, double* values, std::int32_t room, double timeout, std::int32_t* error);
  double (*pull_sample_str)(Inlet, char** values, std::int32_t room, double timeout, std::int32_t* error);
  unsigned long (*pull_chunk_f)(Inlet, float* values, double* stamps, unsigned long room, unsigned long stamp_room,
                                double timeout, std::int32_t* error);
  unsigned long (*pull_chunk_d)(Inlet, double* values, double* stamps, unsigned long room, unsigned long stamp_room,
                                double timeout, std::int32_t* error);
  void (*destroy_string)(char*);
  Outlet (*create_outlet)(Info, std::int32_t chunk, std::int32_t buffer_s);
  void (*destroy_outlet)(Outlet);
  std::int32_t (*push_sample_dtp)(Outlet, const double* values, double stamp, std::int32_t push_through);

  std::filesystem::path file;  ///< where it was found
  double steady_offset_s = 0;  ///< this machine's steady clock minus local_clock()
};

/// Where it is looked for, in order: PERCEPT_LIBLSL, PYLSL_LIB, the wheels of pylsl and mne_lsl in the environment that
/// is active and in the usual places, then the names that the system's loader knows.
std::vector<std::filesystem::path> lsl_candidates();

/// The first that loads and has every function, which stays loaded. Throws ConfigError saying where to get it, or what
/// is wrong with the file that a variable names.
std::shared_ptr<const LslLibrary> load_lsl();
std::shared_ptr<const LslLibrary> load_lsl(const std::vector<std::filesystem::path>& candidates);

}  // namespace percept
