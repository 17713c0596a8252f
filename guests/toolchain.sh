#!/bin/sh
# Prints what decides the bytes of a guest: the versions of compiler, assembler and linker.
set -eu
cc=${1:-gcc}
"$cc" --version | head -n 1
"$("$cc" -print-prog-name=as)" --version | head -n 1
"$("$cc" -print-prog-name=ld)" --version | head -n 1
