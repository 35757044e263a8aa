/*
 * How a command's text becomes a program to run: through the shell's -c when it is short, from a
 * private file when it is long or names its interpreter. The file is removed by who holds it.
 */
#ifndef SANDBOXD_SCRIPT_H
#define SANDBOXD_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "server.h"

struct script {
	const char *argv[4];
	char *file; /* borrowed: handed on to the caller, who removes it with script_remove */
	bool has_interpreter;
	char *words; /* what argv points into */
};

/* 0 or a negative errno; text is borrowed for as long as argv is used. */
int script_make(struct server *server, const char *text, size_t n, struct script *out);
void script_release(struct script *s);
/* Unlinks and frees; *file becomes NULL, which is fine to give as well. */
void script_remove(char **file);
/* A new array of pointers into the names and values in b (each ends with NUL). 0 or -ENOMEM. */
int script_environment(const struct buf *b, const char ***out);

#endif
