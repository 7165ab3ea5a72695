/// The files of evaluation/report/web and the plotting library, put into the program at build time (embed.cmake).
#pragma once

#include <string_view>

namespace percept::evaluation::assets {

extern const std::string_view page_html, report_css, report_js, uplot_css, uplot_js;

}  // namespace percept::evaluation::assets
