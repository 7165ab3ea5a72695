# Writes OUT, a source that defines percept::data::kRegistryText with the text of IN.
file(READ "${IN}" text)
file(WRITE "${OUT}" "namespace percept::data {\nextern const char* const kRegistryText;\n"
                    "const char* const kRegistryText = R\"registry(${text})registry\";\n}\n")
