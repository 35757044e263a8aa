/*
 * Text as the API wants it: UTF-8 repaired, base64, times, names of errors. Pure functions.
 */
#ifndef SANDBOXD_TEXT_H
#define SANDBOXD_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "buf.h"

struct json_object;

/*
 * Appends n bytes to out as valid UTF-8: what is not becomes U+FFFD. Unless `last`, a
 * sequence cut at the end is left for the next call. Returns how many bytes were used.
 */
size_t text_repair(struct buf *out, const void *p, size_t n, bool last);
/* Is it valid UTF-8 without NUL (a cut sequence at the end is fine)? */
bool text_is_text(const void *p, size_t n);
/* How many UTF-16 units a text has. */
size_t text_utf16_length(const char *p, size_t n);
/* A JSON string of any bytes, repaired. NULL: out of memory. */
struct json_object *text_json(const void *p, size_t n);
struct json_object *text_json_str(const char *s);

void text_base64(struct buf *out, const void *p, size_t n);
/* Appends what the text encodes. 0 or -EINVAL: other letters, or data after the padding. */
int text_unbase64(struct buf *out, const char *p, size_t n);

/* "2026-01-02T03:04:05.678Z" of t, or of now if t is NULL. */
struct json_object *text_time(const struct timespec *t);
int64_t text_now_ms(void);       /* CLOCK_REALTIME */
int64_t text_monotonic_ms(void); /* CLOCK_MONOTONIC */
/* n random letters of a-z0-9 and a NUL. */
void text_random(char *out, size_t n);

/* "ENOENT: no such file or directory" */
void text_errno(struct buf *out, int err);

#endif
