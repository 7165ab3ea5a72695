/// The files of realtime/page and the library that draws plots, put into the program at build time (cmake/PerceptEmbed.cmake).
#pragma once

#include <string_view>

namespace percept::live_page {

extern const std::string_view page_html, page_css, page_js, uplot_css, uplot_js;

}  // namespace percept::live_page
