/// The files of evaluation/report/web and the libraries for plots and brains, put into the program at build time (cmake/PerceptEmbed.cmake).
#pragma once

#include <string_view>

namespace percept::evaluation::assets {

extern const std::string_view page_html, report_css, report_js, gallery_html, gallery_css, gallery_js, uplot_css,
    uplot_js, niivue_js;

}  // namespace percept::evaluation::assets
