/*
 * interpreter/kernel.py and kernel.js as bytes of the program; see interpreter_scripts.h. The assembler reads them, by names
 * relative to the directory of the Makefile, which names them as prerequisites.
 */
#include "interpreter_scripts.h"

#define EMBED(name, file)                                                                          \
	__asm__(".pushsection .rodata\n"                                                               \
			".global " #name "\n" #name ":\n"                                                      \
			".incbin \"" file "\"\n"                                                               \
			".global " #name "_end\n" #name "_end:\n"                                              \
			".byte 0\n"                                                                            \
			".popsection\n")

EMBED(interpreter_python, "contrib/sandboxd/interpreter/kernel.py");
EMBED(interpreter_node, "contrib/sandboxd/interpreter/kernel.js");
