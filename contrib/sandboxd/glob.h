/*
 * The globs of watch: `*` and `?` within a name, `**` across slashes.
 */
#ifndef SANDBOXD_GLOB_H
#define SANDBOXD_GLOB_H

#include <stdbool.h>

bool glob_match(const char *pattern, const char *text);
/*
 * Does a pattern mean this path (relative to the root of the watch)? One without a slash means any part of
 * it, one with a slash the path or a directory above it.
 */
bool glob_covers(const char *pattern, const char *path);
/* Only * ? and plain letters: no brackets and braces, which the official server refuses. */
bool glob_is_plain(const char *pattern);

#endif
