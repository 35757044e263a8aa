/*
 * What kind of content a file name promises, and failing that, its first bytes.
 */
#ifndef SANDBOXD_MIME_H
#define SANDBOXD_MIME_H

#include <stdbool.h>
#include <stddef.h>

/* By the extension; NULL: unknown. */
const char *mime_by_name(const char *path);
/* By the first bytes of the content. */
const char *mime_by_content(const void *p, size_t n);
bool mime_is_text(const char *type);

#endif
